"""Functions and classes for errors that name the samples that could not be read.

The module also contains the objects that worker processes send to the main process.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, NamedTuple

from torch.utils.data import get_worker_info

from loopwright.errors import DataError, text_of

# Message of the error that torch raises in a worker if the tensors of two samples differ in shape.
_RAGGED = "Trying to resize storage that is not resizable"


def unreadable(dataset: Any, indices: Sequence[int], error: Exception, what: str = "cannot be read") -> DataError:
    """Build the error for samples that could not be read. Its message contains data set, samples, worker and reason.

    Args:
        dataset: data set whose class name appears in the message.
        indices: indices of the samples; empty if the indices are unknown.
        error: exception whose message is the reason.
        what: verb phrase that says what failed, such as ``cannot be read``.
    """
    worker = get_worker_info()
    where = "" if worker is None else f" (worker {worker.id})"
    named = _named(indices) if indices else "a batch"
    text = text_of(error)
    why = text if isinstance(error, DataError) else ": ".join(filter(None, [type(error).__name__, text]))
    why = "their tensors differ in shape" if text == _RAGGED else why
    return DataError(f"{type(dataset).__name__}: {named} {what}{where}: {why}")


class ReadBatch(NamedTuple):
    """A batch that a worker has read, with the keys of its samples for error messages.

    Unpickling returns the batch without the keys.
    """

    batch: Any
    keys: Sequence[Any]

    def __reduce__(self) -> tuple[Any, ...]:
        return itemgetter(0), ((self.batch,),)


@dataclass(frozen=True, slots=True)
class WorkerFailure:
    """An error raised in a worker, which the worker sends instead of a batch.

    Attributes:
        line: message of the error.
        report: traceback of the error, as one string.
    """

    line: str
    report: str

    @classmethod
    def of(cls, error: DataError) -> WorkerFailure:
        """Return a failure with the message and traceback of ``error``."""
        return cls(str(error), "".join(traceback.format_exception(error)))

    def error(self) -> DataError:
        """Return the error to raise in the main process. The message of its cause contains the worker's traceback."""
        error = DataError(self.line)
        error.__cause__ = RuntimeError(f"Raised in a worker:\n{self.report}")
        return error


def _named(indices: Sequence[int]) -> str:
    if len(indices) == 1:
        return f"sample {indices[0]}"
    shown = ", ".join(map(str, indices[:4]))
    return f"samples {shown}" if len(indices) <= 4 else f"samples {shown}, … ({len(indices)} in all)"
