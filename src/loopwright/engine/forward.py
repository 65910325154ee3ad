"""`Forward`: calls the model on a batch, with the hooks ``on_before_forward`` and ``on_after_forward``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from loopwright.engine.parts import Parts
from loopwright.engine.user_errors import note_batch, note_model
from loopwright.engine.weighting import as_outputs
from loopwright.errors import SettingError
from loopwright.precision import forward_context, with_cast_inputs

Read = Callable[[Any], dict[str, Any]]


class Forward:
    """Calls the model and the forward hooks.

    Args:
        parts: model, device, hooks and other objects of this run; see `Parts`.
        call: function that computes the outputs, such as ``evaluate`` of the strategy, or ``predict`` of a loop.
        read: function that converts the result of ``call`` to a mapping. The default requires a loss.
    """

    __slots__ = ("_after", "_before", "_call", "_context", "_model", "_read", "_state", "_trainer")

    def __init__(self, parts: Parts, call: Callable[..., Any], read: Read = as_outputs) -> None:
        dtype = parts.precision.model_dtype
        self._call = call if dtype is None else with_cast_inputs(call, dtype)
        self._read = read
        self._context = forward_context(parts.device.torch_device.type, parts.precision.autocast_dtype)
        self._trainer = parts.trainer
        self._model = parts.model
        self._state = parts.state
        self._before = parts.hooks["on_before_forward"]
        self._after = parts.hooks["on_after_forward"]

    def __call__(self, batch: Any) -> dict[str, Any]:
        """Return the outputs of the model as a mapping.

        Raises:
            TypeError: if ``read`` refuses the result of the model, such as a mapping without ``loss``.
            SettingError: if the model raises a SettingError. The prefix ``model.`` is added to the name of the setting.
            Exception: any other exception of the model, with notes that name the model, the step and the batch.
        """
        args: list[Any] = [batch]
        kwargs: dict[str, Any] = {}
        for hook in self._before:
            hook(self._trainer, self._model, batch, args, kwargs)
        try:
            if self._context is None:
                returned = self._call(*args, **kwargs)
            else:
                with self._context():
                    returned = self._call(*args, **kwargs)
        except SettingError as error:
            raise error.under("model") from error
        except Exception as error:
            note_model(error, self._model, self._state)
            note_batch(error, batch)
            raise
        outputs = self._read(returned)
        for hook in self._after:
            hook(self._trainer, self._model, outputs, batch)
        return outputs
