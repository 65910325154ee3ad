"""`PlannedSet`, and functions that compute the number of validation batches, a note, and the prefix of mean metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from loopwright.errors import refuse


class PlannedSet(NamedTuple):
    """A validation dataloader in a plan.

    Attributes:
        name: name of the dataloader, which is the prefix of its metrics.
        num_batches: number of batches that a validation reads.
        length: number of batches of the dataloader; None: unknown.
    """

    name: str
    num_batches: int
    length: int | None


def validation_batches(length: int | None, eval_steps: int | None = None, name: str = "val") -> int:
    """Return the number of batches that a validation reads from a dataloader.

    Args:
        length: length of the dataloader in batches; None: unknown.
        eval_steps: setting of the loop: largest number of batches to read; None: all batches.
        name: name of the dataloader, for the message.

    Raises:
        ValueError: if the dataloader is empty, or if its length is unknown and ``eval_steps`` is None.

    >>> validation_batches(79, 50), validation_batches(79, 100), validation_batches(79), validation_batches(None, 50)
    (50, 79, 79, 50)
    """
    if length is None:
        if eval_steps is None:
            problem = f"a number of validation batches, because the length of the dataloader {name!r} is unknown"
            raise refuse("eval_steps", None, problem, "use for example loop.eval_steps=100")
        return eval_steps
    if length == 0:
        remedy = "give it data, leave it out, or use loop.eval_frequency=null to validate nothing"
        raise refuse(f"len({name})", 0, "a validation dataloader of 1 batch or more", remedy)
    return length if eval_steps is None else min(length, eval_steps)


def eval_steps_note(length: int | None, eval_steps: int | None, name: str = "val") -> str | None:
    """Return a note if the dataloader has fewer batches than ``eval_steps``; otherwise None."""
    if length is None or eval_steps is None or eval_steps <= length:
        return None
    return f"eval_steps={eval_steps}: {name} has only {length} batches, which are validated once each"


def mean_prefix(names: Sequence[str], root: str = "val") -> str | None:
    """Return the name prefix of the means over the validation sets; None: no means are logged.

    For the sets ``val/a`` and ``val/b``, the prefix is ``val``: the mean of ``val/a/loss`` and ``val/b/loss`` is
    ``val/loss``. For the single set ``val/a``, ``val/loss`` equals ``val/a/loss``. If the name of a set is ``val``, no
    means are logged.

    Args:
        names: names of the sets.
        root: common beginning of the names, such as ``val``.
    """
    return root if names and root not in names else None
