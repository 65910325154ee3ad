"""`ProgressLogger`: prints the progress of a run.

Progress is printed to stdout, so that ``loopwright > file`` saves the progress. Only warnings and errors are printed to
stderr.
"""

from __future__ import annotations

import logging
import os
import sys
import textwrap
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loopwright.errors import nearest, refuse, refuse_type
from loopwright.hooks import Logger
from loopwright.loggers.lines import metrics_text, plan_text, step_text
from loopwright.loggers.live_line import LiveLine, View
from loopwright.loggers.views import FitView, ValidationView
from loopwright.loop import TrainingLoop, ValidationLoop
from loopwright.terminal_text import encodable, fitted

if TYPE_CHECKING:
    from torch import nn

    from loopwright.loop import LoopCallback
    from loopwright.trainer import Trainer

MODES = ("auto", "live", "lines", "off")

_log = logging.getLogger("loopwright")


class ProgressLogger(Logger):
    """Prints the model and the plan when a fit starts, a line for each round of validations, and the training progress.

    A round consists of the validations of all dataloaders after one step, and the validations that callbacks then
    run in ``run_validation``.

    On a terminal, the progress of training is shown in one line, which a timer thread redraws. Otherwise plain lines
    are printed, at least ``every_seconds`` apart. In every mode, all lines except the redrawn line are also logged to
    the logger ``loopwright`` at level INFO, which ``run.log`` records. If the environment variable ``NO_COLOR`` is set,
    no colours are used.

    Args:
        mode: "live" redraws one line; "lines" prints plain lines; "off" prints nothing; "auto" is "live" on a terminal
            and "lines" otherwise.
        refresh_seconds: time between two redraws of the live line in seconds.
        every_seconds: minimum time in seconds between two plain lines about training; validations are always printed.

    Raises:
        SettingError: if ``mode`` is unknown, or a time is not positive.
    """

    def __init__(self, mode: str = "auto", refresh_seconds: float = 0.5, every_seconds: float = 10.0) -> None:
        if mode not in MODES:
            near = nearest(str(mode), MODES)
            raise refuse("mode", mode, f"one of {', '.join(MODES)}", f"Did you mean {near}?" if near else "")
        self._mode = mode
        self._refresh_seconds = _check_seconds("refresh_seconds", refresh_seconds)
        self._every_seconds = _check_seconds("every_seconds", every_seconds)
        self._fit: FitView | None = None
        self._live: LiveLine | None = None
        self._validation: ValidationView | None = None
        self._round: dict[str, float] | None = None
        self._round_step = 0

    def on_enter_fit(
        self, trainer: Trainer, stack: ExitStack, train_dataloader: Any, val_dataloader: Any, loop: LoopCallback
    ) -> None:
        """Register a function that restores the terminal when the fit ends, even after an error."""
        stack.callback(self._end_fit)

    def on_fit_start(self, trainer: Trainer, train_dataloader: Any, val_dataloader: Any, loop: LoopCallback) -> None:
        """Print the model, the device and the plan, and start the live line.

        If a callback has already stopped the fit, print nothing.
        """
        assert trainer.plan is not None, "a fit that starts has a plan"
        if trainer.stop_reason is not None:
            return
        self._show(trainer.model_lines)
        self._show(plan_text(trainer.plan, train_dataloader, callbacks=trainer.callbacks))
        steps_per_epoch = loop.steps_per_epoch if isinstance(loop, TrainingLoop) else None
        self._fit = FitView(trainer, trainer.plan, steps_per_epoch)
        self._start_live(self._fit)

    def on_enter_validate_all(
        self,
        trainer: Trainer,
        stack: ExitStack,
        val_dataloaders: Any,
        loop: LoopCallback,
        ckpt_paths: list[Path | None],
    ) -> None:
        """Collect the metrics of a round of validations in one line.

        Validations of checkpoints are not collected here, because each of them is printed as a separate line.
        """
        if ckpt_paths == [None]:
            self._begin_round(stack)

    def on_enter_validate(self, trainer: Trainer, stack: ExitStack, val_dataloader: Any, loop: LoopCallback) -> None:
        """Show the progress of this validation. If no round is running, print the validation's metrics as a line."""
        if self._round is None:
            self._begin_round(stack)
        view = ValidationView(str(trainer.validation_name), _num_batches(val_dataloader, loop))
        stack.callback(self._end_validation, self._validation)
        self._validation = view
        if self._fit is not None:
            self._fit.inside = view
        elif self._live is None:
            self._start_live(view)

    def on_validate_batch_end(
        self, trainer: Trainer, model: nn.Module, outputs: dict[str, Any], batch: Any, batch_idx: int
    ) -> None:
        """Add 1 to the number of validated batches."""
        if self._validation is not None:
            self._validation.num_done += 1

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Store metrics for the next line. Outside fits and rounds of validations, print the metrics immediately.

        The gradient norms of single layers or parameters are left out, because a model may have many.
        """
        metrics = {name: value for name, value in metrics.items() if not name.startswith("train/gradient_norm/")}
        if self._round is not None:
            self._round |= metrics
            self._round_step = step
        elif self._fit is None:
            self._show(f"{step_text(step, None)}  {metrics_text(metrics)}")
        else:
            # A new dict is built, because the thread of the live line may be reading the old dict.
            self._fit.training = {**self._fit.training, **metrics}
            self._fit.has_unprinted = True

    def log_timing(self, timing: Mapping[str, float], step: int) -> None:
        """Store the training rates. Print a training line if the previous line is at least ``every_seconds`` old.

        The call with ``train/steps_per_second`` is the last logging call of a log step. At this call, all metrics of
        the step are known.
        """
        if self._fit is None:
            return
        self._fit.timing = {**self._fit.timing, **timing}
        if "train/steps_per_second" in timing:
            self._fit.steps_per_second = timing["train/steps_per_second"]
            if time.monotonic() >= self._fit.next_line_seconds:
                self._show_training(self._fit)

    def log_text(self, texts: Mapping[str, str], step: int) -> None:
        """Print the name of each text, and the indented text below the name."""
        for name, text in texts.items():
            self._show(f"{step_text(step, None)}  {name}\n{textwrap.indent(text, '    ')}")

    def _begin_round(self, stack: ExitStack) -> None:
        self._round = {}
        stack.callback(self._end_round)

    def _end_round(self) -> None:
        metrics, self._round = self._round, None
        if metrics:
            if self._fit is not None:
                self._fit.validation = metrics
            stop_step = None if self._fit is None else self._fit.plan.stop_step
            self._show(f"{step_text(self._round_step, stop_step)}  {metrics_text(metrics)}")

    def _end_fit(self) -> None:
        fit, self._fit = self._fit, None
        if fit is None:
            return
        self._stop_live()
        if fit.has_unprinted:
            self._show_training(fit)

    def _show_training(self, fit: FitView) -> None:
        fit.has_unprinted = False
        fit.next_line_seconds = time.monotonic() + self._every_seconds
        line = fit.line()
        _log.info(line)
        if self._mode != "off" and self._live is None:
            self._print(line)

    def _show(self, text: str) -> None:
        _log.info(text)
        if self._mode == "off":
            return
        if self._live is not None:
            self._live.print(fitted(text))
        else:
            self._print(text)

    def _print(self, text: str) -> None:
        try:
            print(encodable(fitted(text), sys.stdout.encoding), flush=True)
        except BrokenPipeError:  # `loopwright … | head` closes stdout after a few lines; the run continues
            self._mode = "off"
            _log.info("stdout was closed; progress is no longer printed.")

    def _end_validation(self, outer: ValidationView | None) -> None:
        self._validation = outer
        if self._fit is not None:
            self._fit.inside = outer
        elif outer is None:
            self._stop_live()

    def _start_live(self, view: View) -> None:
        is_terminal = sys.stdout.isatty() and os.environ.get("TERM", "") not in ("", "dumb")
        if self._mode == "live" or (self._mode == "auto" and is_terminal):
            self._live = LiveLine(view, self._refresh_seconds)

    def _stop_live(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()


def _check_seconds(setting: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise refuse_type(setting, value, "a positive number of seconds")
    if not 0 < value < float("inf"):
        raise refuse(setting, value, "a positive number of seconds")
    return float(value)


def _num_batches(val_dataloader: Any, loop: LoopCallback) -> int | None:
    """Return the number of batches to validate; None if the dataloader has no length and ``eval_steps`` is None."""
    eval_steps = loop.eval_steps if isinstance(loop, ValidationLoop | TrainingLoop) else None
    try:
        length = len(val_dataloader)
    except (TypeError, NotImplementedError):
        return eval_steps
    return length if eval_steps is None else min(length, eval_steps)
