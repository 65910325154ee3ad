"""Strategies, which place a model on processes, call it, sum its gradients and gather its weights."""

from loopwright.device.strategies.single import Single

__all__ = ["Single"]
