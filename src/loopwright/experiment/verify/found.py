"""`Found`: the result of a comparison of two runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Result of a comparison of two runs.

    Attributes:
        is_equal: whether the two runs are as equal as promised.
        did: description of the two runs.
        said: result in one line.
        explanations: possible explanations of a difference.
        remarks: other remarks on the comparison.
    """

    is_equal: bool
    did: str
    said: str
    explanations: Sequence[str] = ()
    remarks: Sequence[str] = ()


def count(number: int, noun: str) -> str:
    """Return a number and a noun in the singular or plural, such as ``1 step`` or ``2 losses``."""
    plural = f"{noun}{'es' if noun.endswith(('s', 'ch')) else 's'}"
    return f"{number:,} {noun if number == 1 else plural}"
