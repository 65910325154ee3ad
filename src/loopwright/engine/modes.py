"""Context managers that put a model into training or evaluation mode, and then restore the mode of each module."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def training(model: nn.Module) -> Iterator[None]:
    """Put all modules into training mode, unless the root module is already in training mode.

    At the end of the context, the previous mode of each module is restored.
    """
    with _modes_kept(model):
        if not model.training:
            model.train()
        yield


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put all modules into evaluation mode. At the end of the context, restore the previous mode of each module."""
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
