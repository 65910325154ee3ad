"""What a user's code raised in a run, in words that say where."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import active_children
from multiprocessing.connection import wait

from torch import Tensor, nn

from loopwright.errors import DataError, text_of
from loopwright.run_state import RunState

# Torch raises this wherever the main thread is when a worker dies, not only where a batch is awaited.
_DEAD_WORKER = re.compile(r"DataLoader worker \(pid")
# Where a tensor is fetched from the worker that made it. One that is just dying, and not found dead yet, gives none.
_TRANSIT = ("multiprocessing/resource_sharer.py", "multiprocessing/reductions.py")


@contextmanager
def naming_dead_workers() -> Iterator[None]:
    """Say in one way that a dataloader's worker died, for which there are several errors, by how far it was dead.

    Raises:
        DataError: in place of any of them.
    """
    try:
        yield
    except Exception as error:
        if not _is_dead_worker(error):
            raise
        if not isinstance(error, RuntimeError):
            _await_death()
        raise DataError(
            "A worker process of a dataloader died: expected it to read until the end of the run; if memory ran out "
            "use fewer (num_workers), and with num_workers=0 its error is seen here."
        ) from error


def note_reading(error: Exception, dataloader: str, place: str) -> None:
    """Note the dataloader that raised ``error``, where that does not name the sample by itself."""
    if not isinstance(error, DataError) and not _is_dead_worker(error):
        error.add_note(f"Raised by the {dataloader} at {place}.")


def note_model(error: Exception, model: nn.Module, state: RunState, what: str = "model") -> None:
    """Note that ``error`` was raised in the model, and when."""
    if not _is_dead_worker(error):
        when = f"in step {state.global_step + 1}" if state.validation_name is None else f"on {state.validation_name}"
        error.add_note(f"Raised in {what} {type(model).__name__} {when}.")


def check_has_gradient(loss: Tensor) -> None:
    """Say what a loss lacks whose backward failed.

    Raises:
        TypeError: if it is no real number with a gradient.
    """
    if not loss.is_floating_point():
        raise TypeError(f"The model returned a loss of type {loss.dtype}: expected a real floating-point scalar.")
    if not loss.requires_grad:
        raise TypeError(
            "The model returned a loss without a gradient: expected one computed from its parameters; look for "
            "detach(), no_grad(), and parameters with requires_grad=False."
        )


def _is_dead_worker(error: Exception) -> bool:
    if isinstance(error, OSError | EOFError):
        frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
        return any(frame.f_code.co_filename.endswith(_TRANSIT) for frame in frames)
    return isinstance(error, RuntimeError) and _DEAD_WORKER.match(text_of(error)) is not None


def _await_death() -> None:
    """Wait for a worker that is just dying: torch would raise again when it is dead, wherever the thread is then."""
    with suppress(RuntimeError):
        children = active_children()
        dying = wait([child.sentinel for child in children], timeout=1)
        for child in children:
            if child.sentinel in dying:
                child.join(timeout=1)
