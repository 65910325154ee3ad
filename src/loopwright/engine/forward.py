"""One forward of the model, with the hooks around it: the same for training and validation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from loopwright.engine.parts import Parts
from loopwright.engine.user_errors import note_model
from loopwright.engine.weighting import as_outputs
from loopwright.errors import SettingError


class Forward:
    """Calls the model on a batch.

    Args:
        parts: of this run, with its hooks bound.
        predict: called in place of the model; what it returns need not have a loss.
    """

    __slots__ = ("_after", "_before", "_call", "_model", "_needs_loss", "_state", "_trainer")

    def __init__(self, parts: Parts, predict: Callable[..., Any] | None = None) -> None:
        self._call = parts.model if predict is None else predict
        self._needs_loss = predict is None
        self._trainer = parts.trainer
        self._model = parts.model
        self._state = parts.state
        self._before = parts.hooks["on_before_forward"]
        self._after = parts.hooks["on_after_forward"]

    def __call__(self, batch: Any) -> dict[str, Any]:
        """The model's outputs, with a scalar tensor as ``loss`` where one is needed.

        Raises:
            TypeError: if the model returns no loss.
            SettingError: what the model raises of its settings, as settings of ``model``; other exceptions get a note.
        """
        args: list[Any] = [batch]
        kwargs: dict[str, Any] = {}
        for hook in self._before:
            hook(self._trainer, self._model, batch, args, kwargs)
        try:
            returned = self._call(*args, **kwargs)
        except SettingError as error:
            raise error.under("model") from error
        except Exception as error:
            note_model(error, self._model, self._state)
            raise
        outputs = as_outputs(returned, needs_loss=self._needs_loss)
        for hook in self._after:
            hook(self._trainer, self._model, outputs, batch)
        return outputs
