"""Errors that name the data set, the samples and the worker, and what workers send to the main process."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, NamedTuple

from torch.utils.data import get_worker_info

from loopwright.errors import DataError, text_of

# Torch's message in a worker for tensors that differ in shape
_RAGGED = "Trying to resize storage that is not resizable"


def unreadable(dataset: Any, indices: Sequence[int], error: Exception, what: str = "cannot be read") -> DataError:
    """Return an error that names samples of ``dataset``, the worker, and ``error`` as the reason.

    Args:
        dataset: data set, named by its class.
        indices: indices of the samples; empty if they are unknown.
        error: exception that was raised.
        what: verb phrase of the message.
    """
    worker = get_worker_info()
    where = "" if worker is None else f" (worker {worker.id})"
    named = _named(indices) if indices else "a batch"
    text = text_of(error)
    why = text if isinstance(error, DataError) else ": ".join(filter(None, [type(error).__name__, text]))
    why = "their tensors differ in shape" if text == _RAGGED else why
    return DataError(f"{type(dataset).__name__}: {named} {what}{where}: {why}")


class ReadBatch(NamedTuple):
    """A batch that a worker has read, and the keys of its samples. It is unpickled as the batch alone."""

    batch: Any
    keys: Sequence[Any]

    def __reduce__(self) -> tuple[Any, ...]:
        return itemgetter(0), ((self.batch,),)


@dataclass(frozen=True, slots=True)
class WorkerFailure:
    """An error in a worker, sent in place of a batch: its message, and its traceback as text."""

    line: str
    report: str

    @classmethod
    def of(cls, error: DataError) -> WorkerFailure:
        """Make a failure of ``error``."""
        return cls(str(error), "".join(traceback.format_exception(error)))

    def error(self) -> DataError:
        """Return the error for the main process. The message of its cause is the traceback of the worker."""
        error = DataError(self.line)
        error.__cause__ = RuntimeError(f"Raised in a worker:\n{self.report}")
        return error


def _named(indices: Sequence[int]) -> str:
    if len(indices) == 1:
        return f"sample {indices[0]}"
    shown = ", ".join(map(str, indices[:4]))
    return f"samples {shown}" if len(indices) <= 4 else f"samples {shown}, … ({len(indices)} in all)"
