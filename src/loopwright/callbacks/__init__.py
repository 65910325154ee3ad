"""Callbacks that configurations name, one a file."""

from loopwright.callbacks.learning_rate import LearningRateMonitor

__all__ = ["LearningRateMonitor"]
