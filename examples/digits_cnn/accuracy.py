"""A callback that adds the accuracy to the outputs of a classifier, so that it is averaged and logged."""

from typing import Any

from torch import nn

from loopwright import Callback, Trainer


class Accuracy(Callback):
    """Logs ``train/accuracy`` and ``val/accuracy`` of a model that returns ``output`` and ``target``."""

    def on_after_forward(self, trainer: Trainer, model: nn.Module, outputs: dict[str, Any], batch: Any) -> None:
        """Add the fraction of correct predictions to the outputs."""
        is_correct = outputs["output"].argmax(dim=1) == outputs["target"]
        outputs["accuracy"] = is_correct.float().mean()
