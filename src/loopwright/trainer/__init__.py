"""The trainer: the one object that users of the Python API talk to."""

from loopwright.trainer.facade import Trainer
from loopwright.trainer.validation import ValidationRow

__all__ = ["Trainer", "ValidationRow"]
