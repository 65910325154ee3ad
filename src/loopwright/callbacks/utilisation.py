"""`Utilisation`: logs the floating-point operations per second of a fit, also as a fraction of the device's peak."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from loopwright.callbacks.peak_flops import peak_flops_of
from loopwright.errors import SettingError, refuse, refuse_type
from loopwright.hooks import Callback

if TYPE_CHECKING:
    from torch import nn

    from loopwright.loop import LoopCallback
    from loopwright.trainer import Trainer


class Utilisation(Callback):
    """Logs ``train/teraflops_per_second`` and, if the peak is known, ``train/flops_utilisation_fraction`` at log steps.

    `loopwright.engine.flops` counts the floating-point operations (FLOPs) of one forward and backward, once in each
    fit. The counted micro-batch is the first micro-batch of the fit. The FLOPs of other micro-batches are assumed to be
    proportional to the number of samples. Only matrix products, convolutions and attention are counted. The optimizer's
    update is not counted. The training time does not include validations, saves, and a step that compiles the model. If
    several processes train together, the FLOPs of all processes are logged, and the peak is the sum of their peaks.

    Args:
        peak_flops: peak of the device of one process in FLOP/s for the dtype of the matrix products, such as 989e12.
            None selects the peak in the table of known GPUs. If the table does not contain the device, only
            ``train/teraflops_per_second`` is logged, and a warning is logged once.

    Raises:
        SettingError: if ``peak_flops`` is not a positive number; when the fit starts, if each process stores only a
            part of the weights.
    """

    def __init__(self, peak_flops: float | None = None) -> None:
        if peak_flops is not None:
            if isinstance(peak_flops, bool) or not isinstance(peak_flops, int | float):
                raise refuse_type("peak_flops", peak_flops, "a positive number, or null")
            if not 0 < peak_flops < math.inf:
                raise refuse("peak_flops", peak_flops, "a positive number, or null")
        self._given = peak_flops
        self._peak: float | None = None
        self._has_warned = False
        self._flops_per_unit: float | None = None  # a unit is a sample, or a micro-batch if samples are not counted
        self._num_units = 0
        self._seconds = 0.0
        self._num_processes = 1
        self._is_compiling = False

    def on_fit_start(self, trainer: Trainer, train_dataloader: Any, val_dataloader: Any, loop: LoopCallback) -> None:
        """Look up the peak of the device."""
        if trainer.is_sharded:
            problem = ": Utilisation cannot count the operations of a model with device.strategy=fsdp"
            raise SettingError("callbacks", f"{problem}; remove it, or use device.strategy=ddp.")
        self._flops_per_unit, self._num_units, self._seconds = None, 0, 0.0
        self._num_processes, self._is_compiling = trainer.world_size, trainer.measures.is_compile_pending
        name, dtype = trainer.measures.device_name, _dtype(trainer)
        self._peak = self._given or peak_flops_of(name, dtype)
        if self._peak is None and not self._has_warned:
            self._has_warned = True
            trainer.logger.warning(
                "Utilisation: the peak FLOP/s of %s in %s are not known, so only FLOP/s are logged; set peak_flops.",
                name,
                str(dtype).removeprefix("torch."),
            )

    def on_train_batch_end(
        self, trainer: Trainer, model: nn.Module, outputs: dict[str, Any], batch: Any, batch_idx: int
    ) -> None:
        """Count the FLOPs of the first micro-batch. At the end of a log step, log the FLOPs per second."""
        if self._num_processes == 1 or not trainer.is_padding:
            num_units = trainer.measures.num_samples(batch)
            if num_units is None:
                num_units = 1
            self._num_units += num_units
            if self._flops_per_unit is None and num_units:
                self._flops_per_unit = trainer.measures.count_flops(batch) / num_units
        if self._is_compiling:
            if trainer.should_run_optimizer_step:
                self._seconds, self._num_units, self._is_compiling = trainer.measures.train_seconds, 0, False
        elif trainer.is_log_step and trainer.should_run_optimizer_step:
            self._log(trainer)

    def _log(self, trainer: Trainer) -> None:
        now, num_units = trainer.measures.train_seconds, self._num_units
        seconds, self._seconds, self._num_units = now - self._seconds, now, 0
        counts = {} if self._flops_per_unit is None else {"flops": self._flops_per_unit * num_units}
        if self._num_processes > 1:
            counts = trainer.sum_over_processes(counts)
        if seconds and counts:
            rate = counts["flops"] / seconds
            rates = {"train/teraflops_per_second": rate / 1e12}
            if self._peak is not None:
                rates["train/flops_utilisation_fraction"] = rate / (self._peak * self._num_processes)
            trainer.measures.log(**rates)


def _dtype(trainer: Trainer) -> torch.dtype:
    """Return the dtype of autocast; without autocast, the dtype of the first floating-point parameter."""
    floats = (each.dtype for each in trainer.model.parameters() if each.is_floating_point())
    return trainer.precision.autocast_dtype or next(floats, torch.float32)
