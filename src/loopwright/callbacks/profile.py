"""`Profile`: records the operations of a few training steps with torch's profiler."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.profiler import ProfilerActivity, profile

from loopwright.errors import SettingError, check_count
from loopwright.hooks import Callback
from loopwright.regular_files import replace_file

if TYPE_CHECKING:
    from torch import nn

    from loopwright.loop import LoopCallback
    from loopwright.trainer import Trainer

FOLDER = "profile"
_ACTIVITIES = {"cuda": ProfilerActivity.CUDA, "xpu": ProfilerActivity.XPU}
_NUM_ROWS = 50


class Profile(Callback):
    """Records the steps ``first_step`` to ``first_step + num_steps - 1`` with `torch.profiler`.

    The folder ``profile/`` in the run directory receives two files. ``steps_N_to_M.json`` is a Chrome trace, which
    https://ui.perfetto.dev opens. ``steps_N_to_M.txt`` is a table of the operations that take the most time.
    Validations and saves between these steps are also recorded. Processes of dataloader workers are not recorded. If
    several processes train together, only process 0 is recorded.

    Profiling does not change the trained weights, but a recorded step is slower. A trace has about 1 MB for each 1,000
    operations, so record only a few steps.

    Args:
        first_step: number of the first recorded step, from 1. Do not choose the first steps of a run, because these
            steps are slower than later steps.
        num_steps: number of recorded steps. If the fit ends earlier, fewer steps are recorded.

    Raises:
        SettingError: if an argument is not a positive integer, or if the trainer is built without a ``run_dir``.
    """

    def __init__(self, first_step: int = 10, num_steps: int = 3) -> None:
        self._first_step = check_count("first_step", first_step)
        self._num_steps = check_count("num_steps", num_steps)
        self._profiler: profile | None = None
        self._is_done = False

    def setup(self, trainer: Trainer) -> None:
        """Check that the trainer has a run directory.

        Raises:
            SettingError: if the trainer has no run directory.
        """
        if trainer.run_dir is None:
            raise SettingError("run_dir", "=null: expected a directory for the trace of Profile.")

    def on_enter_fit(
        self, trainer: Trainer, stack: ExitStack, train_dataloader: Any, val_dataloader: Any, loop: LoopCallback
    ) -> None:
        """Register a function that stops the profiler when the fit ends, even after an exception."""
        self._is_done = False
        stack.callback(self._stop)

    def on_train_batch_start(self, trainer: Trainer, model: nn.Module, batch: Any, batch_idx: int) -> None:
        """Start the profiler at the first micro-batch of the step ``first_step``."""
        if self._is_done or self._profiler is not None or trainer.global_step + 1 != self._first_step:
            return
        if not trainer.rank:
            own = _ACTIVITIES.get(trainer.device.type)
            self._profiler = profile(activities=[ProfilerActivity.CPU, *([] if own is None else [own])])
            self._profiler.start()

    def on_train_batch_end(
        self, trainer: Trainer, model: nn.Module, outputs: dict[str, Any], batch: Any, batch_idx: int
    ) -> None:
        """Write the files after the last recorded step."""
        if self._profiler is not None and trainer.global_step == self._first_step + self._num_steps - 1:
            self._write(trainer)

    def on_fit_end(self, trainer: Trainer, loop: LoopCallback) -> None:
        """Write the files if the fit ends before the last step to record. Log a warning if no step was recorded."""
        if self._profiler is not None:
            self._write(trainer)
        elif not self._is_done and not trainer.rank:
            trainer.logger.warning(
                "Profile: no step was recorded, because this fit did not train step %d (first_step). It ended at step "
                "%d; set first_step.",
                self._first_step,
                trainer.global_step,
            )

    def _stop(self) -> profile | None:
        profiler, self._profiler = self._profiler, None
        if profiler is not None:
            profiler.stop()
        return profiler

    def _write(self, trainer: Trainer) -> None:
        profiler = self._stop()
        assert profiler is not None and trainer.run_dir is not None, "checked by the callers and in setup"
        self._is_done = True
        folder = trainer.run_dir / FOLDER
        folder.mkdir(exist_ok=True)
        stem = f"steps_{self._first_step}_to_{trainer.global_step}"
        # The profiler follows links when it writes a file. In a new temporary directory there are no links.
        with tempfile.TemporaryDirectory() as temporary:
            trace = Path(temporary) / "trace.json"
            profiler.export_chrome_trace(str(trace))
            replace_file(folder / f"{stem}.json", trace.read_bytes())
        key = "self_cpu_time_total" if trainer.device.type == "cpu" else f"self_{trainer.device.type}_time_total"
        table = profiler.key_averages().table(sort_by=key, row_limit=_NUM_ROWS)
        replace_file(folder / f"{stem}.txt", table.encode())
        trainer.logger.info("Profile: %s contains the trace and the table of %s.", folder, stem.replace("_", " "))
