"""`StopOnNonFinite`: ends a run when its loss or gradients are NaN or infinite, before the weights change."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from loopwright.callbacks.saved_state import check_counts, check_names
from loopwright.errors import NonFiniteError, SettingError, refuse, refuse_type
from loopwright.hooks import Callback
from loopwright.sharded_tensors import own_rows

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from loopwright.trainer import Trainer


_LOSS, _GRADIENT, _EMPTY = "The loss", "The gradient", "num_items=0"


class StopOnNonFinite(Callback):
    """Ends a run before an update with a NaN or infinite loss or gradient, and refuses to save non-finite weights.

    Losses and gradients are checked at the first step of a fit and at log steps. A check waits for the device, and the
    loop waits for the device at log steps even without a check. Other steps are not checked by default.

    With ``precision=fp16``, only losses are checked, because torch's gradient scaler skips an update with infinite
    gradients and lowers the scale of the loss.

    If several processes train together, they exchange the results of a check. A loss that is not finite in one process
    therefore ends the run, or skips the update, in every process at the same step. Micro-batches that do not count in
    a process (`Trainer.is_padding`) are not checked.

    With ``device.strategy=fsdp``, each process checks the rows that it stores. A fault in one process counts in all.

    Before a save, parameters and buffers are checked. A parameter or buffer that was not finite at the start of the
    fit, such as a mask with infinite entries, is not checked.

    Args:
        every_step: whether to check before every update. Each check waits for the device.
        skip: maximum number of consecutive updates that are skipped because a loss or gradient is not finite. After
            ``skip`` skipped updates, the next update with a non-finite loss or gradient ends the run. A skipped update
            is counted in the metric ``train/skipped_updates``, and does not step the schedulers. A skipped update
            restores the model's buffers from a copy that is made at the beginning of every step. A value above 0
            requires ``every_step``.

    Raises:
        SettingError: if ``every_step`` is not a bool, if ``skip`` is not an integer of at least 0, or if ``skip`` is
            above 0 without ``every_step``.
    """

    def __init__(self, every_step: bool = False, skip: int = 0) -> None:
        if not isinstance(every_step, bool):
            raise refuse_type("every_step", every_step, "true or false")
        if isinstance(skip, bool) or not isinstance(skip, int):
            raise refuse_type("skip", skip, "a whole number, 0 or more")
        if skip < 0:
            raise refuse("skip", skip, "a whole number, 0 or more")
        if skip and not every_step:
            raise SettingError("skip", f"={skip}: expected 0, because every_step is false; set every_step=true.")
        self._every_step, self._skip = every_step, skip
        self._num_skipped_in_a_row = 0
        self._is_first = False
        self._is_shared = False  # whether several processes train together
        self._losses: list[Tensor] = []
        self._num_items: list[Tensor] = []  # may be on an accelerator, so the values are read only for an error message
        self._last_checkpoint: Path | None = None
        self._finite_at_start: dict[str, torch.Size] = {}  # shapes of the buffers that were finite, by name
        self._infinite_at_start: set[str] = set()  # names of the parameters that were not finite
        # Buffers before the current step, as (module, name, buffer, copy of the buffer's values).
        self._buffers: list[tuple[nn.Module, str, Tensor | None, Tensor | None]] = []

    def state_dict(self) -> dict[str, Any]:
        """Return the current number of consecutively skipped updates."""
        return {"num_skipped_in_a_row": self._num_skipped_in_a_row}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the number of consecutively skipped updates.

        Raises:
            CheckpointError: if an entry is not an integer of at least 0.
        """
        counts = {name: value for name, value in state_dict.items() if name != "num_skipped"}  # of older checkpoints
        check_names("StopOnNonFinite", counts, self.state_dict())
        check_counts("StopOnNonFinite", counts, *counts)
        self._num_skipped_in_a_row = state_dict["num_skipped_in_a_row"]

    def on_enter_fit(
        self, trainer: Trainer, stack: ExitStack, train_dataloader: Any, val_dataloader: Any, loop: Any
    ) -> None:
        """Clear the losses of an earlier fit, and enable the check at the first step."""
        self._is_first = True
        self._losses.clear()
        self._num_items.clear()
        self._buffers.clear()

    def on_fit_start(self, trainer: Trainer, train_dataloader: Any, val_dataloader: Any, loop: Any) -> None:
        """Record which buffers are finite, and which parameters are not."""
        self._is_shared = trainer.world_size > 1
        buffers, parameters = dict(trainer.model.named_buffers()), dict(trainer.model.named_parameters())
        flags = _are_finite({name: each for name, each in (buffers | parameters).items() if not is_lazy(each)})
        self._finite_at_start = {name: each.shape for name, each in buffers.items() if flags.get(name)}
        self._infinite_at_start = {name for name in parameters if flags.get(name) is False}

    def on_train_batch_start(self, trainer: Trainer, model: nn.Module, batch: Any, batch_idx: int) -> None:
        """Copy the buffers before a step that may be skipped."""
        if self._skip and not self._buffers:
            self._buffers = [
                (module, name, buffer, None if buffer is None else buffer.detach().clone())
                for module in model.modules()
                for name, buffer in module._buffers.items()
                if buffer is None or not is_lazy(buffer)
            ]

    def on_before_backward(self, trainer: Trainer, model: nn.Module, outputs: dict[str, Any]) -> None:
        """If the step will be checked, store the loss of the micro-batch. The loss stays on its device."""
        if self._is_shared and trainer.is_padding:
            return
        if self._every_step or self._is_first or trainer.is_log_step:
            self._losses.append(outputs["loss"].detach())
            if isinstance(outputs.get("num_items"), Tensor):
                self._num_items.append(outputs["num_items"].detach())

    def on_before_optimizer_step(self, trainer: Trainer, model: nn.Module, optimizer: Optimizer) -> None:
        """Check the losses and gradients of the step.

        Raises:
            NonFiniteError: if a loss or gradient is not finite and ``skip`` consecutive updates were already skipped.
                The message names the step, the learning rate and the last checkpoint.
        """
        is_checked = bool(self._losses)
        if self._is_shared:  # a process may have no loss in a step that the others check
            is_checked = self._every_step or self._is_first or trainer.is_log_step
        if not is_checked:
            return
        losses, counts = self._losses, self._num_items
        self._losses, self._num_items = [], []
        self._is_first = False
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        checked = [] if trainer.precision.dtype == "fp16" else parameters
        found = _non_finite(losses, [parameter.grad for parameter in checked if parameter.grad is not None])
        is_empty = bool(found) and any(not count.item() for count in counts)
        if self._is_shared:
            own = {f"{name} of process {trainer.rank}" if name == _LOSS else name: each for name, each in found.items()}
            found = trainer.sum_over_processes({**own, **({_EMPTY: 1.0} if is_empty else {})})
            is_empty = bool(found.pop(_EMPTY, 0.0))
        if not found:
            self._num_skipped_in_a_row = 0
            return
        if self._num_skipped_in_a_row >= self._skip:
            name, value = next(iter(found.items()))
            what = f"{name} is not finite" if name == _GRADIENT else f"{name} is {value}"
            raise NonFiniteError(f"{what} {self._where(trainer, optimizer)} {self._remedy(trainer, is_empty)}")
        self._num_skipped_in_a_row += 1
        trainer.skip_update()
        _restore(self._buffers)

    def on_before_optimizer_zero_grad(self, trainer: Trainer, model: nn.Module, optimizer: Optimizer) -> None:
        """Release the copies of the buffers at the end of a step."""
        self._buffers = []

    def on_save_checkpoint(self, trainer: Trainer, state_dict: dict[str, Any]) -> None:
        """Refuse to save weights that are not finite.

        Raises:
            NonFiniteError: if a parameter or a buffer is not finite. The message names the step, the learning rate
                and the last checkpoint.
        """
        model, shapes = trainer.model, self._finite_at_start
        parameters = [each for name, each in model.named_parameters() if name not in self._infinite_at_start]
        buffers = [buffer for name, buffer in model.named_buffers() if shapes.get(name) == buffer.shape]
        for what, tensors in (("weights", parameters), ("buffers", buffers)):
            is_finite = bool(_largest([tensor.detach() for tensor in tensors]).isfinite())
            if trainer.is_sharded:
                is_finite = not any(trainer.sum_over_processes({what: float(not is_finite)}).values())
            if not is_finite:
                raise NonFiniteError(
                    f"The {what} are not finite after step {trainer.global_step}{_rates(trainer.optimizer)}; "
                    f"they are not saved. {self._remedy(trainer)}"
                )

    def on_after_save_checkpoint(self, trainer: Trainer, ckpt_path: Path) -> None:
        """Store the path of the checkpoint for error messages."""
        self._last_checkpoint = ckpt_path

    def on_before_load_checkpoint(self, trainer: Trainer, ckpt_path: Path) -> None:
        """Store the path of the checkpoint for error messages."""
        self._last_checkpoint = ckpt_path

    def _where(self, trainer: Trainer, optimizer: Optimizer) -> str:
        row = f", {self._skip + 1} steps in a row" if self._skip else ""
        return f"in step {trainer.global_step + 1}{row}{_rates(optimizer)}."

    def _remedy(self, trainer: Trainer, is_empty: bool = False) -> str:
        last = "none" if self._last_checkpoint is None else str(self._last_checkpoint)
        remedy = "try a lower learning rate, or clip the gradients with precision.max_gradient_norm"
        if is_empty:
            remedy = "a micro-batch has num_items=0; divide its loss by count.clamp(min=1) instead of count"
        elif trainer.global_step == 0:
            remedy = "check the data and the loss for divisions by 0 and logarithms of 0"
        return f"Last good checkpoint: {last}; expected finite numbers; {remedy}."


def _rates(optimizer: Optimizer | None) -> str:
    groups = [] if optimizer is None else optimizer.param_groups
    rates = ", ".join(dict.fromkeys(f"{float(group['lr']):.3g}" for group in groups))
    return f" (learning rate {rates})" if rates else ""


def _restore(buffers: list[tuple[nn.Module, str, Tensor | None, Tensor | None]]) -> None:
    """Restore the values of buffers. A buffer that the forward pass has replaced by another tensor is put back."""
    with torch.no_grad():
        for module, name, buffer, values in buffers:
            if buffer is not None and values is not None:
                buffer.copy_(values)
            module._buffers[name] = buffer


def _are_finite(tensors: Mapping[str, Tensor]) -> dict[str, bool]:
    """Return for each tensor whether all of its numbers are finite. The call waits for the device."""
    norms = _norms([tensor.detach() for tensor in tensors.values()])
    return {
        name: math.isfinite(norm)
        for name, norm in zip(tensors, torch.stack(norms).tolist() if norms else [], strict=True)
    }


def _non_finite(losses: list[Tensor], gradients: list[Tensor]) -> dict[str, float]:
    """Return the first loss that is not finite as ``The loss``, and NaN as ``The gradient`` if it is not finite."""
    largest = _largest(gradients)
    together = torch.stack(losses) if losses else torch.zeros(1, device=largest.device)
    is_loss_finite, is_gradient_finite = torch.stack(
        [together.isfinite().all(), largest.isfinite().to(together.device)]
    ).tolist()  # one transfer from the device for both results
    found: dict[str, float] = {}
    if not is_loss_finite:
        found[_LOSS] = next(loss for loss in together.tolist() if not math.isfinite(loss))
    if not is_gradient_finite:
        found[_GRADIENT] = math.nan
    return found


def _largest(tensors: list[Tensor]) -> Tensor:
    """Return the largest magnitude in ``tensors`` as a scalar on the first tensor's device; NaN if a value is NaN."""
    return torch.stack(_norms(tensors) or [torch.zeros(())]).max()


def _norms(tensors: list[Tensor]) -> list[Tensor]:
    """Return the largest magnitude in each tensor, on the first tensor's device; 0 for an empty or integer tensor."""
    dense = [tensor.coalesce().values() if tensor.is_sparse else own_rows(tensor) for tensor in tensors]
    is_number = [bool(t.numel()) and (t.is_floating_point() or t.is_complex()) for t in dense]
    numbers = [t for t, is_one in zip(dense, is_number, strict=True) if is_one]
    found = iter(torch._foreach_norm(numbers, ord=torch.inf) if numbers else ())
    device = tensors[0].device if tensors else None
    zero = torch.zeros((), device=device)
    return [next(found).to(device) if is_one else zero for is_one in is_number]
