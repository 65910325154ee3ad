"""`JSONLinesLogger`: the metrics of a run as files that any tool can read, a line each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from loopwright.hooks import Logger
from loopwright.loggers.run_files import RunFiles, number

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
        self._files: RunFiles | None = None

    def setup(self, trainer: Trainer) -> None:
        """Take the trainer's run directory; a file is made with its first line."""
        self.finalize()
        self._files = RunFiles(trainer.run_dir, METRICS_FILE)

    def on_enter_fit(
        self, trainer: Trainer, stack: ExitStack, train_dataloader: Any, val_dataloader: Any, loop: LoopCallback
    ) -> None:
        """Keep the files open for as long as the fit lasts."""
        self._open_files().keep_open()
        stack.callback(self.finalize)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Append to ``metrics.jsonl``."""
        self._open_files().append(METRICS_FILE, (_line(step, name, value) for name, value in metrics.items()))

    def log_timing(self, timing: Mapping[str, float], step: int) -> None:
        """Append to ``timing.jsonl``."""
        self._open_files().append(TIMING_FILE, (_line(step, name, value) for name, value in timing.items()))

    def finalize(self) -> None:
        """Close the files."""
        if self._files is not None:
            self._files.close()

    def _open_files(self) -> RunFiles:
        assert self._files is not None, "a trainer sets its loggers up before it logs"
        return self._files


def _line(step: int, name: str, value: float) -> str:
    return json.dumps({"step": step, "name": name, "value": number(float(value))}, allow_nan=False) + "\n"
