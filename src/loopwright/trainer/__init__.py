"""The trainer: the one object that users of the Python API talk to."""

from loopwright.trainer.trainer import Trainer
from loopwright.trainer.validate import ValidationRow

__all__ = ["Trainer", "ValidationRow"]
