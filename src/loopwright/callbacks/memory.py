"""`Memory`: logs the peak memory between two log steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loopwright.hooks import Callback

if TYPE_CHECKING:
    from torch import nn

    from loopwright.loop import LoopCallback
    from loopwright.trainer import Trainer


class Memory(Callback):
    """Logs the peak memory since the previous log step, in bytes. The peak includes validations and saves.

    On a GPU, ``memory/peak_allocated_bytes`` is the memory of tensors, and ``memory/peak_reserved_bytes`` is the memory
    that torch reserves for tensors. A large difference between these values indicates fragmentation. On the CPU,
    ``memory/peak_process_bytes`` is the resident memory of this process, without dataloader workers. If several
    processes train together, the largest peak of a process is logged.

    The trainer logs ``peak_memory_bytes``, the peak since the start of the process, even without this callback.
    """

    def __init__(self) -> None:
        self._is_shared = False

    def on_fit_start(self, trainer: Trainer, train_dataloader: Any, val_dataloader: Any, loop: LoopCallback) -> None:
        """Reset the peak. Log a warning if this machine cannot measure the peak between two log steps."""
        self._is_shared = trainer.world_size > 1
        if not trainer.measures.take_peak_memory():
            trainer.logger.warning(
                "Memory: the peak memory between two log steps cannot be measured on this machine (%s), so it is not "
                "logged.",
                trainer.device,
            )

    def on_train_batch_end(
        self, trainer: Trainer, model: nn.Module, outputs: dict[str, Any], batch: Any, batch_idx: int
    ) -> None:
        """At the end of a log step, log the peak."""
        if trainer.is_log_step and trainer.should_run_optimizer_step:
            peaks: dict[str, float] = {**trainer.measures.take_peak_memory()}
            if self._is_shared:
                peaks = trainer.max_over_processes(peaks)
            trainer.measures.log(**{f"memory/{name}": peak for name, peak in peaks.items()})
