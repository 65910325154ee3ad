"""`Trainer`, which fits and validates a model, and `ValidationRow`, an entry of the result of `validate_all`."""

from loopwright.trainer.trainer import Trainer
from loopwright.trainer.validate import ValidationRow

__all__ = ["Trainer", "ValidationRow"]
