"""Loopwright: an experiment framework for PyTorch.

Public names are imported when they are first used, so that ``import loopwright`` does not import torch.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from loopwright.errors import did_you_mean

if TYPE_CHECKING:
    from loopwright import callbacks, data, device, loggers, models, optim, plan
    from loopwright.checkpoint import Checkpointing
    from loopwright.experiment.jobs.load_model import load_model
    from loopwright.hooks import Callback, Logger, ValidationCallback
    from loopwright.loop import LoopCallback, TrainingLoop, ValidationLoop
    from loopwright.precision import Precision
    from loopwright.run_state import FitResult
    from loopwright.trainer import Trainer

__version__ = "0.1.0"

__all__ = [
    "Callback",
    "Checkpointing",
    "FitResult",
    "Logger",
    "LoopCallback",
    "Precision",
    "Trainer",
    "TrainingLoop",
    "ValidationCallback",
    "ValidationLoop",
    "callbacks",
    "data",
    "device",
    "load_model",
    "loggers",
    "models",
    "optim",
    "plan",
]

# For each public name, the module from which it is imported; None if the name is a subpackage.
_LOCATIONS: Mapping[str, str | None] = MappingProxyType(
    {
        "Callback": "loopwright.hooks",
        "Checkpointing": "loopwright.checkpoint",
        "FitResult": "loopwright.run_state",
        "Logger": "loopwright.hooks",
        "LoopCallback": "loopwright.loop",
        "Precision": "loopwright.precision",
        "Trainer": "loopwright.trainer",
        "TrainingLoop": "loopwright.loop",
        "ValidationCallback": "loopwright.hooks",
        "ValidationLoop": "loopwright.loop",
        "callbacks": None,
        "data": None,
        "device": None,
        "load_model": "loopwright.experiment.jobs.load_model",
        "loggers": None,
        "models": None,
        "optim": None,
        "plan": None,
    }
)


def __getattr__(name: str) -> Any:
    if name not in _LOCATIONS:
        raise AttributeError(f"module 'loopwright' has no attribute {name!r}.{did_you_mean(name, _LOCATIONS)}")
    module = _LOCATIONS[name]
    with _without_garbage_collections():
        if module is None:
            return import_module(f"loopwright.{name}")
        return getattr(import_module(module), name)


@contextmanager
def _without_garbage_collections() -> Iterator[None]:
    """Disable the garbage collector during an import, where collections take 0.1 s and free little memory."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def __dir__() -> list[str]:
    return sorted({*globals(), *_LOCATIONS})
