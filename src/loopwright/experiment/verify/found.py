"""`Found`: the result of a comparison of two runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Result of a comparison of two runs.

    Attributes:
        is_equal: whether the tested property holds, as in `loopwright.experiment.verify.Verdict`.
        did: description of the two runs.
        said: description of the result in one line.
        explanations: possible causes of a difference.
        remarks: remarks on the comparison, such as values that were not compared.
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
