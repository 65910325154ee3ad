"""A callback that logs the accuracy in validations."""

from typing import Any

from torch import nn

from loopwright import Callback, Trainer


class ValidationAccuracy(Callback):
    """Logs ``val/accuracy``. In training the images are mixed, so there is no accuracy."""

    def on_validate_step_end(self, trainer: Trainer, model: nn.Module, outputs: dict[str, Any], batch: Any) -> None:
        """Add the fraction of correct predictions to the outputs, which are averaged over the validation set."""
        is_correct = outputs["output"].argmax(dim=1) == outputs["target"]
        outputs["accuracy"] = is_correct.float().mean()
