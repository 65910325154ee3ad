"""`StopOnNonFinite`: a run whose loss is NaN ends before its weights are."""

from __future__ import annotations

import math
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from loopwright.callbacks.saved_state import check_counts, check_names
from loopwright.errors import NonFiniteError, SettingError, refuse, refuse_type
from loopwright.hooks import Callback

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from loopwright.trainer import Trainer


class StopOnNonFinite(Callback):
    """Ends the run where a loss or a gradient is NaN or infinite, before the update, and never saves such weights.

    It looks at the first step of a fit and at log steps, whose values are read from the device anyway; between them
    nothing waits for the device.

    A buffer that was finite when the fit began, such as a running mean, is a weight in this sense; one that was not,
    such as a mask, is the model's own affair.

    Args:
        every_step: look before every update: one wait for the device a step.
        skip: leave out up to this many updates in a row instead of ending the run, and log how many were left out so
            far as ``skipped_updates``; buffers are put back to what they were before the step, which costs a copy of
            them in every step; the schedulers go on. Needs ``every_step``. 0: end at the first.

    Raises:
        SettingError: if ``skip`` is no whole number of at least 0, or is given without ``every_step``.
    """

    def __init__(self, every_step: bool = False, skip: int = 0) -> None:
        if not isinstance(every_step, bool):
            raise refuse_type("every_step", every_step, "true or false")
        if isinstance(skip, bool) or not isinstance(skip, int):
            raise refuse_type("skip", skip, "a whole number, 0 or more")
        if skip < 0:
            raise refuse("skip", skip, "a whole number, 0 or more")
        if skip and not every_step:
            raise SettingError("skip", f"={skip}: expected every_step=true beside it, or 0.")
        self._every_step, self._skip = every_step, skip
        self._num_skipped = self._num_skipped_in_a_row = 0
        self._is_first = False
        self._is_to_log = False
        self._losses: list[Tensor] = []
        self._last_checkpoint: Path | None = None
        self._finite_at_start: dict[str, torch.Size] = {}  # buffers, by name
        # (module, name, buffer, its values) before the present step
        self._buffers: list[tuple[nn.Module, str, Tensor | None, Tensor | None]] = []

    def state_dict(self) -> dict[str, Any]:
        """How many updates were left out, in all and just now."""
        return {"num_skipped": self._num_skipped, "num_skipped_in_a_row": self._num_skipped_in_a_row}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting.

        Raises:
            CheckpointError: if these are no counts.
        """
        check_names("StopOnNonFinite", state_dict, self.state_dict())
        check_counts("StopOnNonFinite", state_dict, *state_dict)
        self._num_skipped = state_dict["num_skipped"]
        self._num_skipped_in_a_row = state_dict["num_skipped_in_a_row"]

    def on_enter_fit(
        self, trainer: Trainer, stack: ExitStack, train_dataloader: Any, val_dataloader: Any, loop: Any
    ) -> None:
        """Look at the first step."""
        self._is_first = True
        self._losses.clear()
        self._buffers.clear()

    def on_fit_start(self, trainer: Trainer, train_dataloader: Any, val_dataloader: Any, loop: Any) -> None:
        """Note which buffers are finite."""
        buffers = {name: each for name, each in trainer.model.named_buffers() if not is_lazy(each)}
        self._finite_at_start = {
            name: buffer.shape for name, buffer in buffers.items() if _largest([buffer.detach()]).isfinite()
        }

    def on_train_batch_start(self, trainer: Trainer, model: nn.Module, batch: Any, batch_idx: int) -> None:
        """Keep the buffers as they are before a step that may be left out."""
        if self._skip and not self._buffers:
            self._buffers = [
                (module, name, buffer, None if buffer is None else buffer.detach().clone())
                for module in model.modules()
                for name, buffer in module._buffers.items()
                if buffer is None or not is_lazy(buffer)
            ]

    def on_before_backward(self, trainer: Trainer, model: nn.Module, outputs: dict[str, Any]) -> None:
        """Keep the losses of a step that is looked at, on their device."""
        if self._every_step or self._is_first or trainer.is_log_step:
            self._losses.append(outputs["loss"].detach())

    def on_before_optimizer_step(self, trainer: Trainer, model: nn.Module, optimizer: Optimizer) -> None:
        """Look at the losses and gradients of the step.

        Raises:
            NonFiniteError: naming the step, the learning rate and the last checkpoint.
        """
        buffers, self._buffers = self._buffers, []
        if not self._losses:
            return
        losses = torch.stack(self._losses)
        self._losses.clear()
        self._is_first = False
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        gradients = _largest([parameter.grad for parameter in parameters if parameter.grad is not None])
        is_loss, is_gradient = torch.stack(
            [losses.isfinite().all(), gradients.isfinite().to(losses.device)]
        ).tolist()  # one wait for the device
        if is_loss and is_gradient:
            self._num_skipped_in_a_row = 0
            return
        if self._num_skipped_in_a_row >= self._skip:
            bad = next((loss for loss in losses.tolist() if not math.isfinite(loss)), None)
            what = "The gradient is not finite" if bad is None else f"The loss is {bad}"
            raise NonFiniteError(f"{what} {self._where(trainer, optimizer)} {self._remedy(trainer)}")
        self._num_skipped += 1
        self._num_skipped_in_a_row += 1
        self._is_to_log = True
        for parameter in parameters:
            parameter.grad = None  # without gradients the optimizer changes neither the parameters nor its own state
        _put_back(buffers)

    def on_train_batch_end(
        self, trainer: Trainer, model: nn.Module, outputs: dict[str, Any], batch: Any, batch_idx: int
    ) -> None:
        """Log an update that was left out, now that its step is counted."""
        if self._is_to_log:
            self._is_to_log = False
            trainer.log_metrics(skipped_updates=self._num_skipped)

    def on_save_checkpoint(self, trainer: Trainer, state_dict: dict[str, Any]) -> None:
        """Refuse to save weights that are not finite.

        Raises:
            NonFiniteError: naming the step, the learning rate and the last checkpoint.
        """
        model, shapes = trainer.model, self._finite_at_start
        buffers = [buffer for name, buffer in model.named_buffers() if shapes.get(name) == buffer.shape]
        for what, tensors in (("weights", [*model.parameters()]), ("buffers", buffers)):
            if not _largest([tensor.detach() for tensor in tensors]).isfinite():
                raise NonFiniteError(
                    f"The {what} are not finite after step {trainer.global_step}{_rates(trainer.optimizer)}; "
                    f"they are not saved. {self._remedy(trainer)}"
                )

    def on_after_save_checkpoint(self, trainer: Trainer, ckpt_path: Path) -> None:
        """Remember the checkpoint."""
        self._last_checkpoint = ckpt_path

    def on_before_load_checkpoint(self, trainer: Trainer, ckpt_path: Path) -> None:
        """Remember the checkpoint."""
        self._last_checkpoint = ckpt_path

    def _where(self, trainer: Trainer, optimizer: Optimizer) -> str:
        row = f", {self._skip + 1} steps in a row" if self._skip else ""
        return f"in step {trainer.global_step + 1}{row}{_rates(optimizer)}."

    def _remedy(self, trainer: Trainer) -> str:
        last = "none" if self._last_checkpoint is None else str(self._last_checkpoint)
        remedy = "try a lower learning rate, or gradients clipped by precision.max_gradient_norm"
        if trainer.global_step == 0:
            remedy = "look at the data and the loss for divisions by 0 and logarithms of 0"
        return f"Last good checkpoint: {last}; expected finite numbers; {remedy}."


def _rates(optimizer: Optimizer | None) -> str:
    groups = [] if optimizer is None else optimizer.param_groups
    rates = ", ".join(dict.fromkeys(f"{float(group['lr']):.3g}" for group in groups))
    return f" (learning rate {rates})" if rates else ""


def _put_back(buffers: list[tuple[nn.Module, str, Tensor | None, Tensor | None]]) -> None:
    """Give buffers their values again, also where a forward put another tensor in the place of one."""
    with torch.no_grad():
        for module, name, buffer, values in buffers:
            if buffer is not None and values is not None:
                buffer.copy_(values)
            module._buffers[name] = buffer


def _largest(tensors: list[Tensor]) -> Tensor:
    """The largest magnitude in ``tensors``, a scalar on the device of the first; NaN where one of them holds a NaN."""
    dense = [tensor.coalesce().values() if tensor.is_sparse else tensor for tensor in tensors]
    numbers = [t for t in dense if t.numel() and (t.is_floating_point() or t.is_complex())]
    norms = torch._foreach_norm(numbers, ord=torch.inf) if numbers else [torch.zeros(())]
    return torch.stack([norm.to(norms[0].device) for norm in norms]).max()
