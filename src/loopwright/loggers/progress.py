"""`ProgressLogger`: tells a person how a run goes.

Everything it prints goes to stdout: progress is what a training command is run to see, so that ``loopwright > file``
keeps it, and stderr is left to warnings and errors.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from loopwright.errors import nearest, refuse, refuse_type
from loopwright.hooks import Logger
from loopwright.loggers.lines import duration_text, epoch_number, metrics_text, plan_text, rate_text, step_text
from loopwright.loop import TrainingLoop

if TYPE_CHECKING:
    from loopwright.loop import LoopCallback
    from loopwright.plan import Plan
    from loopwright.trainer import Trainer

MODES = ("auto", "live", "lines", "off")

_BAR_WIDTH = 20
_log = logging.getLogger("loopwright")


class ProgressLogger(Logger):
    """Shows the plan when a fit starts, each round of validations on a line, and in between how far training is.

    On a terminal that is one line which is redrawn by a timer of its own, so that a step does nothing for it;
    else plain lines, sparse. All but the redrawn line is logged under ``loopwright`` too (level INFO), whatever
    the mode: that is how it gets into ``run.log``. ``NO_COLOR`` is respected.

    Args:
        mode: "live" redraws one line, "lines" prints plain ones, "off" prints nothing; "auto": live on a terminal,
            else lines.
        refresh_seconds: between two drawings of the live line.
        every_seconds: at least between two plain lines about training; validations are always shown.

    Raises:
        SettingError: for other modes, and times that are not positive.
    """

    def __init__(self, mode: str = "auto", refresh_seconds: float = 0.5, every_seconds: float = 10.0) -> None:
        if mode not in MODES:
            near = nearest(str(mode), MODES)
            raise refuse("mode", mode, f"one of {', '.join(MODES)}", f"did you mean {near}" if near else "")
        self._mode = mode
        self._refresh_seconds = _check_seconds("refresh_seconds", refresh_seconds)
        self._every_seconds = _check_seconds("every_seconds", every_seconds)
        self._fit: _Fit | None = None
        self._round: dict[str, float] | None = None
        self._round_step = 0

    def on_enter_fit(
        self, trainer: Trainer, stack: ExitStack, train_dataloader: Any, val_dataloader: Any, loop: LoopCallback
    ) -> None:
        """See to it that the terminal is given back however the fit ends."""
        stack.callback(self._end_fit)

    def on_fit_start(self, trainer: Trainer, train_dataloader: Any, val_dataloader: Any, loop: LoopCallback) -> None:
        """Show the plan and begin the live line."""
        assert trainer.plan is not None, "a fit that starts has a plan"
        self._say(plan_text(trainer.plan, train_dataloader))
        steps_per_epoch = loop.steps_per_epoch if isinstance(loop, TrainingLoop) else None
        self._fit = _Fit(trainer, trainer.plan, steps_per_epoch)
        if self._is_live():
            self._fit.live = Live(
                console=Console(file=sys.stdout, force_terminal=True),
                get_renderable=self._fit.render,
                refresh_per_second=1 / self._refresh_seconds,
                transient=True,
            )
            self._fit.live.start()

    def on_enter_validate_all(
        self,
        trainer: Trainer,
        stack: ExitStack,
        val_dataloaders: Any,
        loop: LoopCallback,
        ckpt_paths: list[Path | None],
    ) -> None:
        """Begin a line for what a round of validations logs; several checkpoints get their lines one by one."""
        if ckpt_paths == [None]:
            self._begin_round(stack)

    def on_enter_validate(self, trainer: Trainer, stack: ExitStack, val_dataloader: Any, loop: LoopCallback) -> None:
        """Begin a line for what one validation logs, unless it belongs to a round."""
        if self._round is None:
            self._begin_round(stack)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Take what is shown next."""
        if self._round is not None:
            self._round |= metrics
            self._round_step = step
        elif self._fit is None:
            self._say(f"{step_text(step, None)}  {metrics_text(metrics)}")
        else:
            self._fit.training = {**self._fit.training, **metrics}  # replaced: the live line may be reading the old one
            self._fit.has_unsaid = True

    def log_timing(self, timing: Mapping[str, float], step: int) -> None:
        """Take the rate, measured where the device was waited for anyway; it comes last at a log step."""
        if self._fit is not None:
            self._fit.steps_per_second = timing.get("train/steps_per_second", self._fit.steps_per_second)
            if time.monotonic() >= self._fit.next_line_seconds:
                self._say_training(self._fit)

    def _begin_round(self, stack: ExitStack) -> None:
        self._round = {}
        stack.callback(self._end_round)

    def _end_round(self) -> None:
        metrics, self._round = self._round, None
        if metrics:
            if self._fit is not None:
                self._fit.validation = metrics
            stop_step = None if self._fit is None else self._fit.plan.stop_step
            self._say(f"{step_text(self._round_step, stop_step)}  {metrics_text(metrics)}")

    def _end_fit(self) -> None:
        fit, self._fit = self._fit, None
        if fit is None:
            return
        if fit.live is not None:
            fit.live.stop()
            fit.live = None
        if fit.has_unsaid:
            self._say_training(fit)

    def _say_training(self, fit: _Fit) -> None:
        fit.has_unsaid = False
        fit.next_line_seconds = time.monotonic() + self._every_seconds
        line = fit.line()
        _log.info(line)
        if self._mode != "off" and fit.live is None:
            self._print(line)

    def _say(self, text: str) -> None:
        _log.info(text)
        if self._mode == "off":
            return
        if self._fit is not None and self._fit.live is not None:
            self._fit.live.console.print(Text(text), soft_wrap=True)
        else:
            self._print(text)

    def _print(self, text: str) -> None:
        try:
            print(text, flush=True)
        except BrokenPipeError:  # whoever read along has gone, which is no reason to lose the run
            self._mode = "off"
            _log.info("stdout was closed: progress is not printed any more.")

    def _is_live(self) -> bool:
        if self._mode == "auto":
            return sys.stdout.isatty() and os.environ.get("TERM", "") not in ("", "dumb")
        return self._mode == "live"


@dataclass(slots=True, eq=False)
class _Fit:
    """What is shown of the fit under way; the live line's thread reads it while training goes on."""

    trainer: Trainer
    plan: Plan
    steps_per_epoch: int | None
    training: dict[str, float] = field(default_factory=dict)
    validation: dict[str, float] = field(default_factory=dict)
    steps_per_second: float | None = None
    live: Live | None = None
    has_unsaid: bool = False
    next_line_seconds: float = 0.0
    began_seconds: float = field(default_factory=time.monotonic)

    def line(self) -> str:
        """How far training is, as one line."""
        step = self.trainer.global_step
        total = max(self.plan.stop_step, 1)
        parts = [
            f"epoch {epoch_number(self.plan, self.steps_per_epoch, step)}",
            step_text(step, self.plan.stop_step),
            f"{100 * step // total} %",
            *self._pace(step),
            metrics_text(dict(sorted(self.training.items(), key=lambda item: not item[0].startswith("train/")))),
        ]
        return "  ".join(part for part in parts if part)

    def render(self) -> RenderableType:
        """The live line: a bar, `line`, and the last validation; cut off at the edge of the terminal."""
        plan = self.plan
        num_done = self.trainer.global_step - plan.position
        bar = ProgressBar(
            plan.total_steps or 1, num_done, width=_BAR_WIDTH, complete_style="cyan", finished_style="green"
        )
        text = "  ".join(part for part in (self.line(), metrics_text(self.validation)) if part)
        row = Table.grid(padding=(0, 2, 0, 0))
        row.add_row(bar, Text(text, no_wrap=True, overflow="ellipsis"))
        return row

    def _pace(self, step: int) -> list[str]:
        """The rate of training, and the time left by the clock, validation and saving included."""
        num_done, seconds = step - self.plan.position, time.monotonic() - self.began_seconds
        if num_done <= 0 or seconds <= 0:
            return []
        rate = num_done / seconds
        left = duration_text((self.plan.stop_step - step) / rate)
        return [rate_text(self.steps_per_second or rate), f"{left} left"]


def _check_seconds(setting: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise refuse_type(setting, value, "a positive number of seconds")
    if not 0 < value < float("inf"):
        raise refuse(setting, value, "a positive number of seconds")
    return float(value)
