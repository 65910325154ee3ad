"""`MetricLog`: passes metrics to the loggers, and keeps the last value of each metric and the best monitored value."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from torch import Tensor

from loopwright.engine.hook_table import Hook
from loopwright.engine.train_mean import TrainSums
from loopwright.engine.weighting import read_back
from loopwright.errors import SettingError, did_you_mean
from loopwright.plan import mean_prefix
from loopwright.protocols import Ranks
from loopwright.run_state import Best, read_best

_log = logging.getLogger("loopwright")


class MetricLog:
    """Passes the metrics of a run to the loggers, and keeps the last value of each metric and the best monitored value.

    Attributes:
        latest: last value of each metric.
        best: best value of the monitored metric; None if no value except NaN was logged.
        best_saved: best value of the monitored metric among the steps that have a checkpoint; None: no such value.
        train_sums: sums of the training metrics since the last log step.
        warned: names of model outputs about which a warning was already logged.
        keeps_best: whether new values can become `best`: True during a fit, False in a validation outside a fit.

    Args:
        monitor: name of the metric whose best value is kept. None: a resumed run uses the metric and the mode of its
            checkpoint, and a new run uses the validation loss; see `set_default_monitor`.
        mode: "min" if lower values are better, "max" if higher values are better; None: "min".
        ranks: processes that train together; None: this process trains alone.
    """

    def __init__(self, monitor: str | None = None, mode: str | None = None, ranks: Ranks | None = None) -> None:
        self._given = monitor
        self._ranks = ranks
        self._monitor = monitor
        self._mode = mode or "min"
        self._loggers: tuple[Hook, ...] = ()
        self._timing_loggers: tuple[Hook, ...] = ()
        self._collected: list[dict[str, float]] = []
        self.latest: dict[str, float] = {}
        self.best: Best | None = None
        self.best_saved: Best | None = None
        self.train_sums = TrainSums(ranks)
        self.warned: set[str] = set()
        self.keeps_best = False
        self._last: Best | None = None  # last value of the monitored metric
        self._saved_step: int | None = None

    def set_default_monitor(self, val_sets: Sequence[str]) -> None:
        """Monitor the validation loss, unless a metric to monitor was given.

        Args:
            val_sets: names of the validation sets. The loss of several sets is their mean; see `means_over_sets`.
        """
        if self._monitor is None and val_sets:
            self._monitor = f"{mean_prefix(val_sets) or val_sets[0]}/loss"

    def connect(self, loggers: tuple[Hook, ...], timing_loggers: tuple[Hook, ...]) -> None:
        """Set the methods ``log_metrics`` and ``log_timing`` of the loggers."""
        self._loggers = loggers
        self._timing_loggers = timing_loggers

    def log(self, values: Mapping[str, Tensor | float], step: int) -> dict[str, float]:
        """Convert the values to floats, pass them to every logger, and return them."""
        metrics = read_back(values)
        self.latest |= metrics
        for collected in self._collected:
            collected |= metrics
        if self.keeps_best:
            self._note_best(metrics, step)
        for log_metrics in self._loggers:
            log_metrics(metrics, step)
        return metrics

    def count_skipped_update(self, step: int) -> None:
        """Add 1 to the number of skipped updates since the run began, across resumes, and log this number."""
        name = "train/skipped_updates"
        self.log({name: self.latest.get(name, 0.0) + 1}, step)

    @contextmanager
    def collecting(self) -> Iterator[dict[str, float]]:
        """Yield a mapping that receives every metric that is logged while the context is open."""
        collected: dict[str, float] = {}
        self._collected.append(collected)
        try:
            yield collected
        finally:
            self._collected.pop()

    def share(self, collected: dict[str, float]) -> None:
        """Replace collected metrics and the best values by the values of process 0.

        A callback may log other values in each process. Schedulers and callbacks of all processes must see the same.

        Args:
            collected: metrics that `collecting` has yielded.
        """
        if self._ranks is not None and self._ranks.world_size > 1:
            marks = [None if mark is None else asdict(mark) for mark in (self._last, self.best, self.best_saved)]
            own = None if self._ranks.rank else json.dumps([collected, marks]).encode()
            shared, shared_marks = json.loads(self._ranks.share_bytes(own))
            for each in (self.latest, collected, *self._collected):
                each |= shared
            self._last, self.best, self.best_saved = map(read_best, shared_marks)

    def log_timing(self, timing: Mapping[str, float], step: int) -> None:
        """Pass times and other measurements to every logger that implements ``log_timing``."""
        for log_timing in self._timing_loggers:
            log_timing(timing, step)

    def note_saved(self, step: int) -> None:
        """Record that ``step`` has a checkpoint. Call this method before or after the validation of ``step``."""
        self._saved_step = step
        if self._last is not None and self._last.step == step:
            self.best_saved = self._better(self._last, self.best_saved)

    def note_lost(self, step: int, best_saved: Best | None) -> None:
        """Undo `note_saved` after a failed save of ``step``.

        Args:
            step: step that could not be saved.
            best_saved: value of the attribute `best_saved` before the call of `note_saved`.
        """
        if self._saved_step == step:
            self._saved_step = None
        if self.best_saved is not None and self.best_saved.step == step:
            self.best_saved = best_saved

    def state_dict(self) -> dict[str, Any]:
        """Return the last values, the best values, the monitored metric, and the sums since the last log step."""
        marks = {"last": self._last, "best": self.best, "best_saved": self.best_saved}
        return {
            "latest": dict(self.latest),
            "monitor": self._monitor,
            "mode": self._mode,
            "train_sums": self.train_sums.state_dict(),
            **{name: None if mark is None else asdict(mark) for name, mark in marks.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state from `state_dict`.

        Raises:
            ValueError: if a value of the state is invalid.
        """
        for name, value in state["latest"].items():
            if not isinstance(value, float):
                raise ValueError(f"latest.{name}: expected a number")
        self._last, self.best, self.best_saved = (read_best(state[name]) for name in ("last", "best", "best_saved"))
        self.train_sums.load_state_dict(state.get("train_sums", {}))  # older checkpoints lack this entry
        self.latest = dict(state["latest"])
        recorded = None if self.best is None else self.best.name
        monitor, mode = state.get("monitor", recorded), state.get("mode", self._mode)  # missing in older checkpoints
        if not isinstance(monitor, str | None) or mode not in ("min", "max"):
            raise ValueError("expected the name and the mode of the monitored metric")
        if monitor is None:
            return
        if self._given is None:
            self._monitor, self._mode = monitor, mode
        if (self._monitor, self._mode) != (monitor, mode):
            _log.warning(
                "The monitored metric was %s (%s), and is %s (%s) now: the best value is looked for from here on.",
                monitor, mode, self._monitor, self._mode,
            )  # fmt: skip
            self._last = self.best = self.best_saved = None

    def refuse_missing_monitor(self) -> None:
        """Refuse a monitored metric ``val/…`` that no validation has logged. Call this method after the validations.

        Raises:
            SettingError: if the validations have logged other ``val/…`` metrics. The message lists these metrics.
        """
        monitor, logged = self._given, [name for name in self.latest if name.startswith("val/")]
        if monitor is not None and monitor.startswith("val/") and logged and monitor not in logged:
            problem = f"={monitor!r}: no such metric. Available: {', '.join(logged)}."
            raise SettingError("checkpoint.monitor", problem + did_you_mean(monitor, logged))

    def _note_best(self, metrics: Mapping[str, float], step: int) -> None:
        if self._monitor is None or self._monitor not in metrics:
            return
        value = metrics[self._monitor]
        if math.isnan(value):
            return
        self._last = Best(name=self._monitor, value=value, step=step)
        self.best = self._better(self._last, self.best)
        if step == self._saved_step:
            self.best_saved = self._better(self._last, self.best_saved)

    def _better(self, new: Best, old: Best | None) -> Best:
        is_better = old is None or (new.value < old.value if self._mode == "min" else new.value > old.value)
        return new if old is None or is_better else old
