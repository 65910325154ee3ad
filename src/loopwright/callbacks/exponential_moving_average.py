"""`ExponentialMovingAverage`: averages the weights during training, and uses the average in validations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from loopwright.callbacks.saved_state import check_counts, check_names, check_settings
from loopwright.errors import CheckpointError, SettingError, check_count, on_one_line, refuse, refuse_type
from loopwright.hooks import Callback
from loopwright.run_state import AVERAGED_WEIGHTS

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn
    from torch.optim import Optimizer

    from loopwright.loop import LoopCallback
    from loopwright.trainer import Trainer

_MAX_NAMES_SHOWN = 5


class ExponentialMovingAverage(Callback):
    """Keeps an exponential moving average of the parameters, which validations use instead of the trained parameters.

    ::

        average = weights                                        # at the start of the first fit, after init_from
        average = decay * average + (1 - decay) * weights        # after every n-th step, n = every_n_steps

    One torch call updates the averages of all parameters. Each average has the dtype of its parameter. An exception is
    a parameter in bfloat16 or float16: its average is stored in float32, because a 16-bit dtype would round most
    updates to 0. The trained weights are bitwise equal to the weights of a run without this callback. Buffers, such as
    the running means of a batch norm, are not averaged. Validations use the model's current buffers.

    When a validation begins during or after a fit, the average replaces the values of the model's parameters. This
    includes the validations that callbacks run in ``run_validation``. When the validation ends or fails, the trained
    weights are restored.

    The entry ``model`` of a checkpoint contains the trained weights, which a resume and `init_from` load. This
    callback's state contains the averages under the names of the parameters. A validation of a checkpoint uses the
    averages in the checkpoint. If the checkpoint contains no averages, the validation uses the trained weights.

    Args:
        decay: weight of the old average in an update, in [0, 1).
        every_n_steps: number of steps between two updates of the average.
        warms_up: whether the decay of update t = 0, 1, … is the smaller of ``decay`` and (1 + t) / (10 + t). A small
            decay in early updates reduces the influence of the initial weights. TensorFlow's
            `ExponentialMovingAverage` uses the same formula if its argument ``num_updates`` is given.

    Raises:
        SettingError: if an argument is invalid, or when a trainer with several of these callbacks is built.
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
        # Parameters and their averages, in the same order. A tied parameter appears once. The lists are built before
        # the first step, because looking up tensors by name in every step would be slow.
        self._trained_list: list[Tensor] = []
        self._average_list: list[Tensor] = []
        self._has_wide_averages = False  # whether an average has another dtype than its parameter
        self._is_swapped_in = False
        # Copies of trained weights during a validation, by index in the lists. Only parameters whose average has
        # another dtype need a copy.
        self._kept: dict[int, Tensor] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return the settings, the number of updates, and the averages by parameter names of the unwrapped model."""
        averages = {name: self._average_of(name).detach() for name in self._averages}
        return {**self._settings, "num_updates": self._num_updates, AVERAGED_WEIGHTS: averages}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the average.

        Raises:
            CheckpointError: if the averages do not match the model, or if a setting differs.
        """
        check_names("ExponentialMovingAverage", state_dict, self.state_dict())
        check_settings("ExponentialMovingAverage", state_dict, self._settings)
        check_counts("ExponentialMovingAverage", state_dict, "num_updates")
        saved = state_dict[AVERAGED_WEIGHTS]
        if not isinstance(saved, dict):
            raise CheckpointError(f"ExponentialMovingAverage: {AVERAGED_WEIGHTS}: expected tensors by name.")
        faults = sorted(
            on_one_line(str(name), 80)
            for name in saved.keys() | self._parameters.keys()
            if name not in self._parameters
            or _shape_and_dtype(saved.get(name)) != (self._parameters[name].shape, _wide(self._parameters[name]))
        )
        if faults:
            shown = ", ".join(faults[:_MAX_NAMES_SHOWN]) + (", …" if len(faults) > _MAX_NAMES_SHOWN else "")
            raise CheckpointError(
                f"ExponentialMovingAverage: {AVERAGED_WEIGHTS}: {shown}: these entries do not match the model; "
                "expected the names, shapes and dtypes of its parameters."
            )
        self._num_updates = state_dict["num_updates"]
        self._hold(saved)

    def post_setup(self, trainer: Trainer) -> None:
        """Store references to the parameters of this trainer's model, and clear the averages."""
        num_averages = sum(isinstance(callback, ExponentialMovingAverage) for callback in trainer.callbacks)
        if num_averages > 1:
            expected = f": expected at most one ExponentialMovingAverage, found {num_averages}"
            raise SettingError("callbacks", f"{expected}; a validation can use only one average.")
        self._parameters = {
            name: parameter
            for name, parameter in trainer.parameters.items()
            if parameter.is_floating_point() or parameter.is_complex()
        }
        self._averages, self._num_updates = {}, 0

    def finalize(self) -> None:
        """Drop the references to the model's parameters. `state_dict` still returns the averages."""
        self._parameters, self._trained_list = {}, []

    def on_enter_fit(
        self, trainer: Trainer, stack: ExitStack, train_dataloader: Any, val_dataloader: Any, loop: LoopCallback
    ) -> None:
        """Clear the averages if no step was completed, because this fit may load other weights."""
        if trainer.global_step == 0:
            self._averages = {}

    def on_fit_start(self, trainer: Trainer, train_dataloader: Any, val_dataloader: Any, loop: LoopCallback) -> None:
        """If there are no averages yet, initialise the averages with the current weights."""
        if not self._averages:
            self._hold(self._parameters)

    def on_after_optimizer_step(self, trainer: Trainer, model: nn.Module, optimizer: Optimizer) -> None:
        """Update the averages with the new weights."""
        if (trainer.global_step + 1) % self._every_n_steps:  # global_step is incremented after this hook
            return
        decay = self._decay
        if self._warms_up:
            decay = min(decay, (1 + self._num_updates) / (10 + self._num_updates))
        # `torch.optim.swa_utils.AveragedModel` would copy a counter from the device to the CPU at every update.
        trained = self._trained_list
        if self._has_wide_averages:
            trained = [each.to(other.dtype) for each, other in zip(trained, self._average_list, strict=True)]
        with torch.no_grad():
            torch._foreach_lerp_(self._average_list, trained, 1 - decay)
        self._num_updates += 1

    def on_enter_validate_all(
        self,
        trainer: Trainer,
        stack: ExitStack,
        val_dataloaders: Any,
        loop: LoopCallback,
        ckpt_paths: list[Path | None],
    ) -> None:
        """Exchange weights and averages for a round of validations, including ``run_validation`` of callbacks."""
        stack.enter_context(self._swapped_in())

    def on_enter_validate(self, trainer: Trainer, stack: ExitStack, val_dataloader: Any, loop: LoopCallback) -> None:
        """Exchange weights and averages for a validation of the current weights.

        For a validation of a checkpoint, `preprocess_checkpoint` loads the averages in the checkpoint.
        """
        if trainer.validation_checkpoint is None:
            stack.enter_context(self._swapped_in())

    def on_save_checkpoint(self, trainer: Trainer, state_dict: dict[str, Any]) -> None:
        """If a checkpoint is saved during a validation, put the trained weights into the checkpoint."""
        if self._is_swapped_in:
            places = {id(each): index for index, each in enumerate(self._trained_list)}
            for name, parameter in self._parameters.items():
                kept = self._kept.get(places[id(parameter)])
                state_dict["model"][name] = self._averages[name] if kept is None else kept

    def preprocess_checkpoint(self, trainer: Trainer, state_dict: dict[str, Any]) -> None:
        """If a checkpoint is loaded for a validation, replace its model weights by its averages."""
        if trainer.validation_checkpoint is None:
            return
        model = state_dict["model"]
        for state in state_dict.get("callbacks", {}).values():
            averages = state.get(AVERAGED_WEIGHTS, {})
            model |= {name: each.to(model[name].dtype) for name, each in averages.items() if name in model}

    @property
    def _settings(self) -> dict[str, Any]:
        return {"decay": self._decay, "every_n_steps": self._every_n_steps, "warms_up": self._warms_up}

    @contextmanager
    def _swapped_in(self) -> Iterator[None]:
        """Exchange weights and averages within this context.

        Do nothing if there are no averages, or if weights and averages are already exchanged.
        """
        if self._is_swapped_in or not self._averages:
            yield
            return
        swapped: list[int] = []
        self._is_swapped_in = True
        try:
            for index, (trained, average) in enumerate(zip(self._trained_list, self._average_list, strict=True)):
                if trained.dtype == average.dtype:
                    _exchange(trained, average)
                else:  # an exchange would round the average to the parameter's dtype
                    self._kept[index] = trained.detach().clone()
                    trained.data.copy_(average)
                swapped.append(index)
            yield
        finally:
            self._swap_back(swapped)
            self._is_swapped_in = False

    def _swap_back(self, swapped: list[int]) -> None:
        """Restore the trained weights at these indices in the lists."""
        for index in swapped:
            kept = self._kept.pop(index, None)
            if kept is None:
                _exchange(self._trained_list[index], self._average_list[index])
            else:
                self._trained_list[index].data.copy_(kept)

    def _average_of(self, name: str) -> Tensor:
        """Return the average of a parameter, also while weights and averages are exchanged."""
        average = self._averages[name]
        is_exchanged = self._is_swapped_in and self._parameters[name].dtype == average.dtype
        return self._parameters[name] if is_exchanged else average

    def _hold(self, weights: Mapping[str, Tensor]) -> None:
        """Initialise the averages with copies of ``weights``. Tied parameters share one average."""
        held: dict[nn.Parameter, Tensor] = {}
        for name, parameter in self._parameters.items():
            if parameter not in held:
                # A copy of the parameter has the parameter's memory format; ``weights[name]`` may have another format.
                place = parameter.detach().to(_wide(parameter), copy=True)
                held[parameter] = place.copy_(weights[name].detach())
            self._averages[name] = held[parameter]
        self._trained_list, self._average_list = list(held), list(held.values())
        self._has_wide_averages = any(each.dtype != other.dtype for each, other in held.items())


def _exchange(a: Tensor, b: Tensor) -> None:
    """Exchange the values of two tensors in place, without rounding.

    A write to ``.data`` does not invalidate the autograd graph, so a validation may run in the middle of a step.
    """
    kept = a.data.clone()
    a.data.copy_(b.data)
    b.data.copy_(kept)


def _wide(parameter: Tensor) -> torch.dtype:
    """Return the dtype of the average of a parameter: float32 for a 16-bit float."""
    return torch.float32 if parameter.dtype in (torch.bfloat16, torch.float16) else parameter.dtype


def _shape_and_dtype(tensor: object) -> object:
    return (tensor.shape, tensor.dtype) if isinstance(tensor, Tensor) else None
