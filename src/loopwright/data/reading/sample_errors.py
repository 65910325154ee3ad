"""Errors for samples that cannot be read. They name the data set, the sample index and the worker."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils.data import get_worker_info

from loopwright.errors import DataError, text_of

# torch's message in a worker for tensors that differ in shape
_RAGGED = "Trying to resize storage that is not resizable"


def unreadable(dataset: Any, indices: Sequence[int], error: Exception, what: str = "cannot be read") -> DataError:
    """Build the error for samples of ``dataset`` that cannot be read. It names the samples and the worker.

    Args:
        dataset: data set that contains the samples.
        indices: indices of the samples; empty if it is not known which samples a batch was made of.
        error: error that was raised.
        what: description of the failure in the message, such as ``cannot be read``.
    """
    worker = get_worker_info()
    where = "" if worker is None else f" (worker {worker.id})"
    named = _named(indices) if indices else "a batch"
    text = text_of(error)
    why = text if isinstance(error, DataError) else ": ".join(filter(None, [type(error).__name__, text]))
    why = "their tensors differ in shape" if text == _RAGGED else why
    return DataError(f"{type(dataset).__name__}: {named} {what}{where}: {why}")


@dataclass(frozen=True, slots=True)
class WorkerFailure:
    """The message and traceback of an error, as text, which a worker sends instead of a batch."""

    line: str
    report: str

    @classmethod
    def of(cls, error: DataError) -> WorkerFailure:
        """Convert ``error`` to text."""
        return cls(str(error), "".join(traceback.format_exception(error)))

    def error(self) -> DataError:
        """Return the error for this process. Its cause contains the worker's traceback as text."""
        error = DataError(self.line)
        error.__cause__ = RuntimeError(f"Raised in a worker:\n{self.report}")
        return error


def _named(indices: Sequence[int]) -> str:
    if len(indices) == 1:
        return f"sample {indices[0]}"
    shown = ", ".join(map(str, indices[:4]))
    return f"samples {shown}" if len(indices) <= 4 else f"samples {shown}, … ({len(indices)} in all)"
