"""Functions that add notes to errors of models and dataloaders, or replace such errors by clearer errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from loopwright.errors import DataError, on_one_line, text_of
from loopwright.run_state import RunState

_MAX_NAMES = 10  # largest number of keys of a batch that a note lists


@contextmanager
def naming_dead_workers() -> Iterator[None]:
    """Convert torch's error for a dead dataloader worker into a `DataError`.

    torch raises the error in a signal handler, so it can occur at any line of the ``with`` block.
    """
    try:
        yield
    except RuntimeError as error:
        if not text_of(error).startswith("DataLoader worker (pid"):
            raise
        raise DataError(
            "A worker process of a dataloader died, possibly because memory ran out. Use fewer workers (num_workers), "
            "or set num_workers=0 to see the worker's error in the main process."
        ) from error


def note_reading(error: Exception, dataloader: str, place: str) -> None:
    """Add a note to ``error`` that names the dataloader and the batch.

    A `DataError` gets no note, because its message already names the dataloader.
    """
    if not isinstance(error, DataError):
        error.add_note(f"Raised by the {dataloader} at {place}.")


def note_model(error: Exception, model: nn.Module, state: RunState, what: str = "model") -> None:
    """Add a note to ``error`` that names the model, and the step or the validation dataloader."""
    when = f"in step {state.global_step + 1}" if state.validation_name is None else f"on {state.validation_name}"
    error.add_note(f"Raised in {what} {type(model).__name__} {when}.")


def note_batch(error: Exception, batch: Any) -> None:
    """Add a note to ``error`` with the class and the keys or the length of the batch.

    The note helps if the model expected a batch of another class. For example, ``image, label = batch`` unpacks the
    keys of a mapping without an error, and a later line fails. Only a `TypeError`, `AttributeError` or `LookupError`
    gets a note, because a batch of the wrong class causes these errors.
    """
    if not isinstance(error, TypeError | AttributeError | LookupError):
        return
    if isinstance(batch, Mapping):
        names = [str(name) for name in batch]
        more = ", …" if len(names) > _MAX_NAMES else ""
        error.add_note(f"The batch is a mapping with {on_one_line(', '.join(names[:_MAX_NAMES]), 200)}{more}.")
    elif isinstance(batch, list | tuple):
        hint = ": for a module that takes only a part of it, use loopwright.models.Supervised(net, loss)"
        error.add_note(f"The batch is a {type(batch).__name__} of {len(batch)}{hint}.")


def check_has_gradient(loss: Tensor) -> None:
    """Check that ``backward()`` can be called on ``loss``.

    Raises:
        TypeError: if ``loss`` has no real floating-point dtype, or does not require grad.
    """
    if not loss.is_floating_point():
        raise TypeError(f"The model returned a loss of dtype {loss.dtype}: expected a real floating-point scalar.")
    if not loss.requires_grad:
        raise TypeError(
            "The model returned a loss that does not require grad: expected a loss computed from the model's "
            "parameters; look for detach(), no_grad(), and parameters with requires_grad=False."
        )
