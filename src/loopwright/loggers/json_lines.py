"""`JSONLinesLogger`: the metrics of a run as files that any tool can read, a line each."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from loopwright.errors import refuse
from loopwright.hooks import Logger

if TYPE_CHECKING:
    from contextlib import ExitStack

    from loopwright.loop import LoopCallback
    from loopwright.trainer import Trainer

METRICS_FILE = "metrics.jsonl"
TIMING_FILE = "timing.jsonl"


class JSONLinesLogger(Logger):
    """Appends each value to a file in the run directory as ``{"step": 100, "name": "val/loss", "value": 0.41}``.

    ``metrics.jsonl`` holds what the same run would give again; clocks and rates go to ``timing.jsonl``. Every line
    is strict JSON: what is not finite is a string, ``"NaN"``, ``"Infinity"`` or ``"-Infinity"``, and so
    ``float(value)`` reads every line. The system has the lines when a call returns; a machine that loses power can
    leave half a last line.

    Raises:
        SettingError: when the trainer is built without a ``run_dir``.
    """

    def __init__(self) -> None:
        self._run_dir: Path | None = None
        self._files: dict[str, TextIO] = {}
        self._is_fitting = False

    def setup(self, trainer: Trainer) -> None:
        """Take the trainer's run directory; a file is made with its first line."""
        if trainer.run_dir is None:
            raise refuse("run_dir", None, f"a directory for {METRICS_FILE}", "give Trainer(run_dir=…)")
        self.finalize()
        self._run_dir = Path(trainer.run_dir)

    def on_enter_fit(
        self, trainer: Trainer, stack: ExitStack, train_dataloader: Any, val_dataloader: Any, loop: LoopCallback
    ) -> None:
        """Keep the files open for as long as the fit lasts."""
        self._is_fitting = True
        stack.callback(self.finalize)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Append to ``metrics.jsonl``."""
        self._append(METRICS_FILE, metrics, step)

    def log_timing(self, timing: Mapping[str, float], step: int) -> None:
        """Append to ``timing.jsonl``."""
        self._append(TIMING_FILE, timing, step)

    def finalize(self) -> None:
        """Close the files."""
        self._is_fitting = False
        while self._files:
            _, file = self._files.popitem()
            file.close()

    def _append(self, name: str, values: Mapping[str, float], step: int) -> None:
        assert self._run_dir is not None, "a trainer sets its loggers up before it logs"
        if name not in self._files:
            self._run_dir.mkdir(parents=True, exist_ok=True)
            self._files[name] = (self._run_dir / name).open("a", encoding="utf-8", newline="\n")
        file = self._files[name]
        file.writelines(_line(step, key, value) for key, value in values.items())
        file.flush()
        if not self._is_fitting:
            self.finalize()


def _line(step: int, name: str, value: float) -> str:
    return json.dumps({"step": step, "name": name, "value": strict_number(float(value))}, allow_nan=False) + "\n"


def strict_number(value: float) -> float | str:
    """``value`` as strict JSON has it: what is not finite is a text that ``float`` reads."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
