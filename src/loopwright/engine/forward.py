"""One forward of the model, with the hooks around it: the same for training and validation."""

from __future__ import annotations

from typing import Any

from loopwright.engine.items import as_outputs
from loopwright.engine.parts import Parts


class Forward:
    """Calls the model on a batch.

    Args:
        parts: of this run, with its hooks bound.
    """

    __slots__ = ("_after", "_before", "_model", "_trainer")

    def __init__(self, parts: Parts) -> None:
        self._trainer = parts.trainer
        self._model = parts.model
        self._before = parts.hooks["on_before_forward"]
        self._after = parts.hooks["on_after_forward"]

    def __call__(self, batch: Any) -> dict[str, Any]:
        """The model's outputs, with a scalar tensor as ``loss``."""
        if self._before:
            args: list[Any] = [batch]
            kwargs: dict[str, Any] = {}
            for hook in self._before:
                hook(self._trainer, self._model, batch, args, kwargs)
            outputs = as_outputs(self._model(*args, **kwargs))
        else:
            outputs = as_outputs(self._model(batch))
        for hook in self._after:
            hook(self._trainer, self._model, outputs, batch)
        return outputs
