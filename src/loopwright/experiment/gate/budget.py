"""`Budget`: the limits on the size of a configuration. Every walk over a configuration spends one."""

from __future__ import annotations

from dataclasses import dataclass

from loopwright.errors import SettingError

MAX_VALUES = 10_000
MAX_CHARACTERS = 1_000_000  # in all keys and texts; for a file, its bytes
MAX_DEPTH = 100  # nested containers
MAX_CHAIN = 200  # interpolations, each of which refers to the next
MAX_COMBINATIONS = 10_000  # of interpolations whose target is known only when they are resolved


@dataclass(slots=True)
class Budget:
    """The values and characters that one walk over a configuration may still read.

    A value that is reached again through an alias or an interpolation is counted again, so aliases and cycles cannot
    get around the limits. Every method raises a `SettingError` for the path or file ``where`` if a limit is exceeded.

    Args:
        num_values: number of values left.
        num_characters: number of characters left.
    """

    num_values: int = MAX_VALUES
    num_characters: int = MAX_CHARACTERS

    def spend_values(self, where: str, num_values: int = 1) -> None:
        """Subtract a number of values: mappings, lists and scalars."""
        self.num_values -= num_values
        _refuse_if(self.num_values < 0, where, f"{MAX_VALUES:,} values after expansion of aliases and interpolations")

    def spend_text(self, where: str, size: int, unit: str = "characters of text") -> None:
        """Subtract the characters of a key or text, or the bytes of a file."""
        self.num_characters -= size
        _refuse_if(self.num_characters < 0, where, f"{MAX_CHARACTERS:,} {unit}")

    def check_depth(self, where: str, depth: int) -> None:
        """Check the number of nested containers."""
        _refuse_if(depth > MAX_DEPTH, where, f"{MAX_DEPTH} levels of nesting")

    def check_chain(self, where: str, length: int) -> None:
        """Check the number of interpolations in a chain."""
        _refuse_if(length > MAX_CHAIN, where, f"{MAX_CHAIN} interpolations that each refer to the next")

    def check_combinations(self, where: str, num_combinations: int) -> None:
        """Check the number of ways in which interpolations with unknown targets can refer to each other."""
        kind = "combinations of nested interpolations such as ${a.${b}}; use plain ones such as ${a.c}"
        _refuse_if(num_combinations > MAX_COMBINATIONS, where, f"{MAX_COMBINATIONS:,} {kind}")


def _refuse_if(is_exceeded: bool, where: str, limit: str) -> None:
    if is_exceeded:
        raise SettingError(where or "configuration", f": expected at most {limit}.")
