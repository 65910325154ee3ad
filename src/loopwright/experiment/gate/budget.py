"""`Budget`, which limits the number of values, the number of characters and the depth of a configuration.

Every function that visits all values of a configuration counts the values with a new `Budget`.
"""

from __future__ import annotations

from dataclasses import dataclass

from loopwright.errors import SettingError

MAX_VALUES = 10_000
MAX_CHARACTERS = 1_000_000  # total length of all keys and strings in a configuration; also size of a file in bytes
MAX_DEPTH = 100  # levels of nested mappings and lists
MAX_CHAIN = 200  # length of a chain in which each interpolation refers to the next interpolation
# Number of ways in which nested interpolations such as ${a.${b}} can refer to each other. The setting to which such an
# interpolation refers is unknown before ${b} is resolved.
MAX_COMBINATIONS = 10_000


@dataclass(slots=True)
class Budget:
    """Number of values and characters that a function may still read from one configuration.

    A value is counted again for each alias and each interpolation that refers to the value. Every method raises a
    `SettingError` if a limit is exceeded. The message contains ``where``, the path of a setting or file.

    Args:
        num_values: number of values left.
        num_characters: number of characters left.
    """

    num_values: int = MAX_VALUES
    num_characters: int = MAX_CHARACTERS

    def spend_values(self, where: str, num_values: int = 1) -> None:
        """Subtract ``num_values`` from the number of values left. Each mapping, list and scalar is one value."""
        self.num_values -= num_values
        _refuse_if(self.num_values < 0, where, f"{MAX_VALUES:,} values after expansion of aliases and interpolations")

    def spend_text(self, where: str, size: int, unit: str = "characters of text") -> None:
        """Subtract the length of a key or string, or the size of a file in bytes, from the characters left."""
        self.num_characters -= size
        _refuse_if(self.num_characters < 0, where, f"{MAX_CHARACTERS:,} {unit}")

    def check_depth(self, where: str, depth: int) -> None:
        """Refuse more than `MAX_DEPTH` nested containers."""
        _refuse_if(depth > MAX_DEPTH, where, f"{MAX_DEPTH} levels of nesting")

    def check_chain(self, where: str, length: int) -> None:
        """Refuse a chain of more than `MAX_CHAIN` interpolations."""
        _refuse_if(length > MAX_CHAIN, where, f"{MAX_CHAIN} interpolations that each refer to the next")

    def check_combinations(self, where: str, num_combinations: int) -> None:
        """Refuse more than `MAX_COMBINATIONS` ways in which nested interpolations can refer to each other."""
        kind = "combinations of nested interpolations such as ${a.${b}}; use plain ones such as ${a.c}"
        _refuse_if(num_combinations > MAX_COMBINATIONS, where, f"{MAX_COMBINATIONS:,} {kind}")


def _refuse_if(is_exceeded: bool, where: str, limit: str) -> None:
    if is_exceeded:
        raise SettingError(where or "configuration", f": expected at most {limit}.")
