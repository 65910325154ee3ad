"""`Budget`: the limits on the size of a configuration, which every walk over one spends."""

from __future__ import annotations

from dataclasses import dataclass

from loopwright.errors import SettingError

MAX_VALUES = 10_000
MAX_CHARACTERS = 1_000_000  # of keys and texts; of a file, bytes
MAX_DEPTH = 100  # containers inside one another
MAX_CHAIN = 200  # interpolations that each name the next
MAX_COMBINATIONS = 10_000  # of interpolations whose target is known only at run time


@dataclass(slots=True)
class Budget:
    """The values and characters that one walk over a configuration may still read.

    A value that is reached again through an alias or an interpolation is paid for again, so neither aliases nor
    cycles evade the limits.

    Args:
        num_values: number of values left.
        num_characters: number of characters left.

    Every method raises a `SettingError` with the given path or file when its limit is exceeded.
    """

    num_values: int = MAX_VALUES
    num_characters: int = MAX_CHARACTERS

    def spend_values(self, where: str, num_values: int = 1) -> None:
        """Pay for values: mappings, lists and scalars."""
        self.num_values -= num_values
        _refuse_if(self.num_values < 0, where, f"{MAX_VALUES:,} values, with aliases and interpolations written out")

    def spend_text(self, where: str, size: int, unit: str = "characters of text") -> None:
        """Pay for the characters of keys and texts, or for the bytes of a file."""
        self.num_characters -= size
        _refuse_if(self.num_characters < 0, where, f"{MAX_CHARACTERS:,} {unit}")

    def check_depth(self, where: str, depth: int) -> None:
        """Check how deep containers are nested."""
        _refuse_if(depth > MAX_DEPTH, where, f"{MAX_DEPTH} levels of nesting")

    def check_chain(self, where: str, length: int) -> None:
        """Check how many interpolations follow one another."""
        _refuse_if(length > MAX_CHAIN, where, f"{MAX_CHAIN} interpolations that each name the next")

    def check_combinations(self, where: str, num_combinations: int) -> None:
        """Check how often a text can be copied by interpolations whose target is known only at run time."""
        kind = "combinations of interpolations such as ${a.${b}}, whose target is known only at run time"
        _refuse_if(num_combinations > MAX_COMBINATIONS, where, f"{MAX_COMBINATIONS:,} {kind}")


def _refuse_if(is_exceeded: bool, where: str, limit: str) -> None:
    if is_exceeded:
        raise SettingError(where or "configuration", f": expected at most {limit}.")
