"""`Budget`: limits on the number of values, the number of characters and the depth of a configuration.

Every function that visits all values of a configuration counts them with a new `Budget`.
"""

from __future__ import annotations

from dataclasses import dataclass

from loopwright.errors import SettingError

MAX_VALUES = 10_000
MAX_CHARACTERS = 1_000_000  # total length of all keys and strings; for a file, its size in bytes
MAX_DEPTH = 100  # number of nested containers
MAX_CHAIN = 200  # number of interpolations in a chain, in which each interpolation refers to the next
# A nested interpolation such as ${a.${b}} refers to a setting that is known only when ${b} is resolved. The limit is
# the number of ways in which such interpolations can refer to each other.
MAX_COMBINATIONS = 10_000


@dataclass(slots=True)
class Budget:
    """Number of values and characters that a function may still read from one configuration.

    A value that is read again through an alias or an interpolation is counted again, so the limits also hold for
    aliases and cycles. Every method raises a `SettingError` if a limit is exceeded. The argument ``where`` is the path
    of a setting or file, for the message.

    Args:
        num_values: number of values left.
        num_characters: number of characters left.
    """

    num_values: int = MAX_VALUES
    num_characters: int = MAX_CHARACTERS

    def spend_values(self, where: str, num_values: int = 1) -> None:
        """Subtract ``num_values`` from the number of values left. Mappings, lists and scalars are values."""
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
