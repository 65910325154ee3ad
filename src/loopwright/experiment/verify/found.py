"""`Found`: what a comparison found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a comparison found.

    Attributes:
        is_equal: whether it is what was promised.
        did: what was carried out.
        said: the finding, in a line.
        explanations: what may explain a difference.
        remarks: what else there is to say.
    """

    is_equal: bool
    did: str
    said: str
    explanations: Sequence[str] = ()
    remarks: Sequence[str] = ()


def count(number: int, noun: str) -> str:
    """Such as ``1 step`` and ``2 losses``."""
    plural = f"{noun}{'es' if noun.endswith(('s', 'ch')) else 's'}"
    return f"{number:,} {noun if number == 1 else plural}"
