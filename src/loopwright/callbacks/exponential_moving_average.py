"""`ExponentialMovingAverage`: validates with an average of the weights over the steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from loopwright.callbacks.saved_state import check_counts, check_names, check_settings
from loopwright.errors import CheckpointError, SettingError, check_count, on_one_line, refuse, refuse_type
from loopwright.hooks import Callback

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn
    from torch.optim import Optimizer

    from loopwright.loop import LoopCallback
    from loopwright.trainer import Trainer

_KEY = "averaged_weights"
_MAX_NAMES_SHOWN = 5


class ExponentialMovingAverage(Callback):
    """Keeps an average of the parameters over the steps, and validates with it instead of with the trained ones.

    ::

        average = weights                                        # where the first fit begins, after init_from
        after each update: average = decay * average + (1 - decay) * weights

    One operation a step, on the device, in the parameters' own types; what is trained stays the same, bitwise. Buffers
    are not averaged: the model's own, such as running means of a batch norm, serve both.

    Every validation in a fit and after it, downstream ones included, sees the average in the model's parameters; the
    trained ones are put back when it ends, also by an error. A checkpoint's model is the trained one, with which a
    resume and `init_from` go on; the average lies beside it in this callback's state, by the same names. Validating a
    checkpoint takes its average; one that holds none is validated with its trained weights.

    Args:
        decay: share of the old average in the new one at each update, from 0 up to but not including 1.
        every_n_steps: steps between two updates of the average.
        warms_up: begin with a smaller decay, (1 + t) / (10 + t) for update t = 0, 1, …, until ``decay`` is smaller, as
            TensorFlow's does when it is told ``num_updates``: the first weights are soon forgotten.

    Raises:
        SettingError: for values other than these; when the trainer is built, if there are two of these callbacks.
    """

    def __init__(self, decay: float = 0.999, every_n_steps: int = 1, warms_up: bool = False) -> None:
        expected = "a number in [0, 1)"
        if isinstance(decay, bool) or not isinstance(decay, int | float):
            raise refuse_type("decay", decay, expected)
        if not 0 <= decay < 1:
            raise refuse("decay", decay, expected)
        if not isinstance(warms_up, bool):
            raise refuse_type("warms_up", warms_up, "true or false")
        self._decay = float(decay)
        self._every_n_steps = check_count("every_n_steps", every_n_steps, "a whole number of steps, 1 or more")
        self._warms_up = warms_up
        self._num_updates = 0
        self._parameters: dict[str, nn.Parameter] = {}
        self._averages: dict[str, Tensor] = {}
        # Each tensor once, also where it is tied; built per fit, so that a step looks nothing up.
        self._trained_list: list[Tensor] = []
        self._average_list: list[Tensor] = []
        self._is_swapped_in = False

    def state_dict(self) -> dict[str, Any]:
        """The average by plain names, how often it was updated, and how."""
        held: Mapping[str, Tensor] = self._parameters if self._is_swapped_in else self._averages
        averages = {name: held[name].detach() for name in self._averages}
        return {**self._settings, "num_updates": self._num_updates, _KEY: averages}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with an average.

        Raises:
            CheckpointError: naming what does not fit the model, or was set otherwise.
        """
        check_names("ExponentialMovingAverage", state_dict, self.state_dict())
        check_settings("ExponentialMovingAverage", state_dict, self._settings)
        check_counts("ExponentialMovingAverage", state_dict, "num_updates")
        saved = state_dict[_KEY]
        if not isinstance(saved, dict):
            raise CheckpointError(f"ExponentialMovingAverage: {_KEY}: expected tensors by name.")
        faults = sorted(
            on_one_line(str(name), 80)
            for name in saved.keys() | self._parameters.keys()
            if name not in self._parameters or _form(saved.get(name)) != _form(self._parameters[name])
        )
        if faults:
            shown = ", ".join(faults[:_MAX_NAMES_SHOWN]) + (", …" if len(faults) > _MAX_NAMES_SHOWN else "")
            raise CheckpointError(
                f"ExponentialMovingAverage: {_KEY}: {shown}: not as in the model; expected the names, shapes "
                "and types of its parameters."
            )
        self._num_updates = state_dict["num_updates"]
        self._hold(saved)

    def post_setup(self, trainer: Trainer) -> None:
        """Begin anew with this trainer's model."""
        if sum(isinstance(callback, ExponentialMovingAverage) for callback in trainer.callbacks) > 1:
            raise SettingError("callbacks", ": two of ExponentialMovingAverage; expected one: a validation uses one.")
        self._parameters = {
            name: parameter
            for name, parameter in trainer.parameters.items()
            if parameter.is_floating_point() or parameter.is_complex()
        }
        self._averages, self._num_updates = {}, 0

    def finalize(self) -> None:
        """Let go of the model; the average stays, in `state_dict`."""
        self._parameters, self._trained_list = {}, []

    def on_enter_fit(
        self, trainer: Trainer, stack: ExitStack, train_dataloader: Any, val_dataloader: Any, loop: LoopCallback
    ) -> None:
        """Forget an average of a run that has not begun: other weights may be loaded now."""
        if trainer.global_step == 0:
            self._averages = {}

    def on_fit_start(self, trainer: Trainer, train_dataloader: Any, val_dataloader: Any, loop: LoopCallback) -> None:
        """Begin with the present weights, unless there is an average already."""
        if not self._averages:
            self._hold(self._parameters)

    def on_after_optimizer_step(self, trainer: Trainer, model: nn.Module, optimizer: Optimizer) -> None:
        """Take the new weights in."""
        if (trainer.global_step + 1) % self._every_n_steps:  # the present step is counted after this
            return
        decay = self._decay
        if self._warms_up:
            decay = min(decay, (1 + self._num_updates) / (10 + self._num_updates))
        # `torch.optim.swa_utils.AveragedModel` reads its count back from the device at every update.
        with torch.no_grad():
            torch._foreach_lerp_(self._average_list, self._trained_list, 1 - decay)
        self._num_updates += 1

    def on_enter_validate_all(
        self,
        trainer: Trainer,
        stack: ExitStack,
        val_dataloaders: Any,
        loop: LoopCallback,
        ckpt_paths: list[Path | None],
    ) -> None:
        """Swap the average in for a whole round, whose downstream validations use it too."""
        stack.enter_context(self._swapped_in())

    def on_enter_validate(self, trainer: Trainer, stack: ExitStack, val_dataloader: Any, loop: LoopCallback) -> None:
        """Swap the average in, unless a checkpoint is validated, whose own was loaded."""
        if trainer.validation_checkpoint is None:
            stack.enter_context(self._swapped_in())

    def on_save_checkpoint(self, trainer: Trainer, state_dict: dict[str, Any]) -> None:
        """Save the trained weights as the model, also from inside a validation."""
        if self._is_swapped_in:
            state_dict["model"] |= self._averages  # which hold the trained ones now

    def preprocess_checkpoint(self, trainer: Trainer, state_dict: dict[str, Any]) -> None:
        """Validate a checkpoint with its average; a fit goes on with what it trained."""
        if trainer.validation_checkpoint is None:
            return
        for state in state_dict.get("callbacks", {}).values():
            state_dict["model"] |= state.get(_KEY, {})

    @property
    def _settings(self) -> dict[str, Any]:
        return {"decay": self._decay, "every_n_steps": self._every_n_steps, "warms_up": self._warms_up}

    @contextmanager
    def _swapped_in(self) -> Iterator[None]:
        """Exchange the average with the parameters; inside of another such context, or without one, nothing."""
        if self._is_swapped_in or not self._averages:
            yield
            return
        swapped = []
        self._is_swapped_in = True
        try:
            for pair in zip(self._trained_list, self._average_list, strict=True):
                _exchange(*pair)
                swapped.append(pair)
            yield
        finally:
            for pair in swapped:
                _exchange(*pair)
            self._is_swapped_in = False

    def _hold(self, weights: Mapping[str, Tensor]) -> None:
        """Begin the average with a copy of ``weights``; what is one tensor in the model is one in it."""
        held: dict[nn.Parameter, Tensor] = {}
        for name, parameter in self._parameters.items():
            if parameter not in held:
                held[parameter] = parameter.detach().clone().copy_(weights[name].detach())  # laid out as the parameter
            self._averages[name] = held[parameter]
        self._trained_list, self._average_list = list(held), list(held.values())


def _exchange(a: Tensor, b: Tensor) -> None:
    """Exchange the values of two tensors in place, bitwise.

    Through ``.data``, so that a validation inside a step does not invalidate the graph of its forward.
    """
    kept = a.data.clone()
    a.data.copy_(b.data)
    b.data.copy_(kept)


def _form(tensor: object) -> object:
    return (tensor.shape, tensor.dtype) if isinstance(tensor, Tensor) else None
