"""Strategies: how a model is placed, called, summed and gathered."""

from loopwright.device.strategies.single import Single

__all__ = ["Single"]
