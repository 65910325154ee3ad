"""Context managers that set training or evaluation mode, and restore the mode of each module."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def training(model: nn.Module) -> Iterator[None]:
    """Put all modules into training mode, unless the root module is in training mode already.

    At the end of the context, each module gets its earlier mode back.
    """
    with _modes_kept(model):
        if not model.training:
            model.train()
        yield


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put all modules into evaluation mode. At the end of the context, each module gets its earlier mode back."""
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
