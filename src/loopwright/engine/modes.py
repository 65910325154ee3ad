"""Training and evaluation mode, module by module."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def training(model: nn.Module) -> Iterator[None]:
    """Train the model: a root found in evaluation mode is put into training mode as a whole.

    Afterwards each module has the mode in which it was found.
    """
    with _modes_kept(model):
        if not model.training:
            model.train()
        yield


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluate the model: every module in evaluation mode; each mode is given back."""
    with _modes_kept(model):
        model.eval()
        yield


@contextmanager
def _modes_kept(model: nn.Module) -> Iterator[None]:
    found = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, is_training in found:
            module.training = is_training
