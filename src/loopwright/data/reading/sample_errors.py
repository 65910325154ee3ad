"""A sample that cannot be read is named: data set, index, worker; in this process as in a worker."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils.data import get_worker_info

from loopwright.errors import DataError, text_of

# What torch says in a worker of tensors that differ in shape
_RAGGED = "Trying to resize storage that is not resizable"


def unreadable(dataset: Any, indices: Sequence[int], error: Exception, what: str = "cannot be read") -> DataError:
    """The error that names the samples of ``dataset`` that could not be read, and the worker; ``error`` says why.

    No ``indices``: a batch of which nobody knows what it was made of.
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
    """What a worker hands over in place of a batch: the line, and the traceback that stays behind in it."""

    line: str
    report: str

    @classmethod
    def of(cls, error: DataError) -> WorkerFailure:
        """The failure that ``error`` tells of."""
        return cls(str(error), "".join(traceback.format_exception(error)))

    def error(self) -> DataError:
        """The same as an exception of this process; its cause is the worker's traceback in words."""
        error = DataError(self.line)
        error.__cause__ = RuntimeError(f"in the worker:\n{self.report}")
        return error


def _named(indices: Sequence[int]) -> str:
    if len(indices) == 1:
        return f"sample {indices[0]}"
    shown = ", ".join(map(str, indices[:4]))
    return f"samples {shown}" if len(indices) <= 4 else f"samples {shown}, … ({len(indices)} in all)"
