"""The trainer, which is the main object of the Python API."""

from loopwright.trainer.trainer import Trainer
from loopwright.trainer.validate import ValidationRow

__all__ = ["Trainer", "ValidationRow"]
