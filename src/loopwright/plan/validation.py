"""How many batches of a validation dataloader are validated."""

from __future__ import annotations

from typing import NamedTuple

from loopwright.errors import refuse


class PlannedSet(NamedTuple):
    """A validation dataloader in a plan: ``num_batches`` of its ``length`` (None: unknown) batches are validated."""

    name: str
    num_batches: int
    length: int | None


def validation_batches(length: int | None, eval_steps: int | None = None, name: str = "val") -> int:
    """How many batches to validate of a dataloader of ``length`` batches: at most ``eval_steps``, and each once.

    Args:
        length: of the dataloader, in batches; None: unknown.
        eval_steps: as a loop gives it; None: all batches.
        name: of the dataloader, for the error.

    Raises:
        ValueError: if the dataloader is empty, or of unknown length and ``eval_steps`` is not given.

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
    """The line that says that ``eval_steps`` is more than the dataloader has; None where it is not."""
    if length is None or eval_steps is None or eval_steps <= length:
        return None
    return f"eval_steps={eval_steps}: {name} has only {length} batches, which are validated once each"
