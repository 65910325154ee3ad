"""Strategies, which place a model on processes, call it, average its gradients and gather its weights."""

from loopwright.device.strategies.choose import make_strategy
from loopwright.device.strategies.replicated import Replicated
from loopwright.device.strategies.single import Single

__all__ = ["Replicated", "Single", "make_strategy"]
