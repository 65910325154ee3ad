"""Tests of `ProgressLogger`: plain lines in a file, a live line on a terminal, and the restored terminal."""

from __future__ import annotations

import io
import logging
import re
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

import tiny
from loopwright import Callback, Trainer, TrainingLoop, ValidationCallback
from loopwright.experiment.rundir.run_log import run_log
from loopwright.hooks import HOOKS, implements
from loopwright.loggers import ProgressLogger

SHOW_CURSOR, HIDE_CURSOR, ERASE_LINE = "\x1b[?25h", "\x1b[?25l", "\x1b[2K"
LOOP = TrainingLoop(num_steps=6, eval_frequency=3)
SELDOM = {"refresh_seconds": 1e9, "every_seconds": 1e9}  # no line is printed because time has passed


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "200")
    return Terminal()


def fit(logger: ProgressLogger, loop: TrainingLoop = LOOP, **settings: Any) -> Trainer:
    with tiny.trainer(loop, loggers=[logger], **{"log_every_n_steps": 1, **settings}) as trainer:
        trainer.fit(tiny.batches(), {"a": tiny.batches(2), "b": tiny.batches(1)})
    return trainer


def fit_on(terminal: Terminal, logger: ProgressLogger, **settings: Any) -> str:
    with redirect_stdout(terminal):
        fit(logger, **settings)
    return terminal.getvalue()


def test_a_file_has_the_plan_a_line_per_validation_round_and_few_training_lines(
    capsys: pytest.CaptureFixture[str],
) -> None:
    trainer = fit(ProgressLogger(**SELDOM))
    shown, errors = capsys.readouterr()
    assert errors == ""
    assert "\x1b" not in shown
    head, *lines = re.split(r"\n(?=epoch|step \d)", shown.rstrip("\n"))
    assert trainer.plan is not None
    assert re.match(r"Model: Regression, 49 .*\nDevice: cpu, \d+ threads?\nPlan: train 6 steps", head)
    rounds = [line for line in lines if line.startswith("step")]
    assert [line.split("  ")[0] for line in rounds] == ["step 3/6", "step 6/6"]
    assert [re.findall(r"val/\w+/\w+", line) for line in rounds] == [
        ["val/a/loss", "val/a/error", "val/b/loss", "val/b/error"]
    ] * 2
    training = [line for line in lines if line.startswith("epoch")]
    assert [re.match(r"epoch 1  step \d/6  \d+ %", line)[0] for line in training] == [  # type: ignore[index]
        "epoch 1  step 1/6  16 %",
        "epoch 1  step 6/6  100 %",
    ]
    assert all("train/loss" in line and re.search("steps/s|s/step", line) and " left" in line for line in training)


def test_every_seconds_sets_how_often_training_lines_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    fit(ProgressLogger(every_seconds=1e-9))
    shown = capsys.readouterr().out
    assert re.findall(r"^epoch 1  step (\d)/6", shown, re.MULTILINE) == ["1", "2", "3", "4", "5", "6"]


def test_a_terminal_has_one_line_that_is_redrawn(terminal: Terminal) -> None:
    shown = fit_on(terminal, ProgressLogger(**SELDOM))
    assert HIDE_CURSOR in shown
    assert shown.rindex(SHOW_CURSOR) > shown.rindex(HIDE_CURSOR)
    live = shown[shown.index(HIDE_CURSOR) : shown.rindex(SHOW_CURSOR)]
    assert ERASE_LINE in live
    assert re.search(r"epoch 1  step 6/6  \S+ (?:steps/s|s/step)  \S+ left  train/loss", live)
    assert len(re.findall(r"step \d/6  val/a/loss", live)) == 2


def test_the_live_line_shows_the_last_validation(terminal: Terminal) -> None:
    shown = fit_on(terminal, ProgressLogger(**SELDOM))
    assert re.search(
        r"step 6/6 .* left  train/loss \S+  val/a/loss \S+  val/b/loss \S+  val/loss \S+  train/error \S+  val/a/error",
        shown,
    )


def test_the_live_line_keeps_the_losses_on_a_narrow_terminal(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = fit_on(terminal, ProgressLogger(**SELDOM)).splitlines()
    (last,) = [
        line
        for line in lines
        if re.search(r"epoch 1  step 6/6  \S+ (?:steps/s|s/step)  \S+ left  train/loss .*…", line)
    ]
    assert len(re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\r", "", last)) <= 80


def test_the_live_line_shows_the_progress_of_a_validation(terminal: Terminal) -> None:
    shown: list[str] = []

    class Look(Callback):
        def on_validate_batch_start(self, trainer: Trainer, model: Any, batch: Any, batch_idx: int) -> None:
            assert logger._fit is not None
            shown.append(logger._fit.live_text(200))

    logger = ProgressLogger(**SELDOM)
    fit_on(terminal, logger, callbacks=[Look()])
    seen = [re.findall(r"validating \S+(?: \d+/\d+)?", line) for line in shown]
    assert seen == [["validating val/a"], ["validating val/a 1/2"], ["validating val/b"]] * 2
    assert all("left" in line for line in shown)


def test_a_validation_without_a_fit_has_a_live_line_too(terminal: Terminal) -> None:
    with redirect_stdout(terminal), tiny.trainer(loggers=[ProgressLogger(**SELDOM)]) as trainer:
        trainer.validate({"a": tiny.batches(2)})
        assert sys.stdout is terminal
    shown = terminal.getvalue()
    assert "validating val/a 2/2  0:00 left" in shown
    assert shown.rindex(SHOW_CURSOR) < shown.rindex("step 0  val/a/loss")


def test_other_output_is_printed_above_the_live_line(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def warn_and_print(trainer: Trainer, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == 2:
            logging.getLogger("loopwright").warning("a warning")
            print("a printed line")

    monkeypatch.setattr("sys.stderr", terminal)
    with run_log(tmp_path / "run.log"):
        shown = fit_on(terminal, ProgressLogger(**SELDOM), callbacks=[tiny.Recorder(warn_and_print)])
    for text in ("a warning", "a printed line"):
        assert re.search(rf"\x1b\[(?:2K|\?25l){text}\n", shown), shown  # the live line was erased, or not yet drawn


def test_warnings_go_to_stderr_if_stderr_is_a_file(
    terminal: Terminal, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def warn(trainer: Trainer, batch: Any, batch_idx: int) -> None:
        logging.getLogger("loopwright").warning("a warning")

    with run_log(tmp_path / "run.log"):
        shown = fit_on(terminal, ProgressLogger(), callbacks=[tiny.Recorder(warn)])
    assert capsys.readouterr().err.count("a warning\n") == 6
    assert "a warning" not in shown


def test_the_terminal_is_restored_after_an_error(terminal: Terminal) -> None:
    def fail(trainer: Trainer, batch: Any, batch_idx: int) -> None:
        raise KeyboardInterrupt

    with redirect_stdout(terminal):
        with pytest.raises(KeyboardInterrupt):
            fit(ProgressLogger(), callbacks=[tiny.Recorder(fail)])
        assert sys.stdout is terminal
    shown = terminal.getvalue()
    assert shown.rindex(SHOW_CURSOR) > shown.rindex(HIDE_CURSOR)


def test_no_color_is_respected(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert not re.search(r"\x1b\[[0-9;]*m", fit_on(terminal, ProgressLogger()))


def test_a_dumb_terminal_has_plain_lines(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    shown = fit_on(terminal, ProgressLogger())
    assert "\x1b" not in shown
    assert "epoch 1  step 6/6" in shown


def test_mode_off_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    fit(ProgressLogger("off"))
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("mode", ["live", "lines", "off"])
def test_in_every_mode_plain_lines_are_logged(mode: str, terminal: Terminal, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="loopwright"):
        fit_on(terminal, ProgressLogger(mode, **SELDOM))
    logged = [message for message in caplog.messages if message.startswith(("Plan", "step", "epoch"))]
    assert [re.split(" {2}|\n", message)[0] for message in logged] == [
        "Plan: train 6 steps, from global_step 0 to 6",
        "epoch 1",
        "step 3/6",
        "step 6/6",
        "epoch 1",
    ]


def test_the_line_of_a_validation_round_includes_downstream_validations(capsys: pytest.CaptureFixture[str]) -> None:
    class Cloze(ValidationCallback):
        def run_validation(self, trainer: Trainer, loop_idx: int | None, is_last: bool) -> None:
            trainer.log_metrics(**{"cloze/accuracy": 0.5})

    fit(ProgressLogger(), callbacks=[Cloze()])
    rounds = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step")]
    assert ["  cloze/accuracy 0.5  val/loss " in line for line in rounds] == [True, True]


def test_a_validation_without_a_fit_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with tiny.trainer(loggers=[ProgressLogger()]) as trainer:
        trainer.validate({"a": tiny.batches(2)})
        trainer.log_metrics(other=1.0)
    first, second = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"step 0  val/a/loss \S+  val/a/error \S+", first)
    assert second == "step 0  other 1"


def test_a_second_fit_is_shown_and_closing_twice_is_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    logger = ProgressLogger()
    with tiny.trainer(TrainingLoop(num_steps=1), loggers=[logger]) as trainer:
        trainer.fit(tiny.batches())
        trainer.fit(tiny.batches())
    logger.finalize()
    assert capsys.readouterr().out.count("Plan: train 1 step") == 2


def test_a_closed_stdout_does_not_end_the_run(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr("sys.stdout", Closed())
    with caplog.at_level(logging.INFO, logger="loopwright"):
        assert fit(ProgressLogger()).global_step == 6
    assert any("stdout was closed" in message for message in caplog.messages)


def test_it_implements_no_hook_of_a_training_step() -> None:
    implemented = {hook for hook in HOOKS if implements(ProgressLogger(), hook)}
    assert implemented == {
        "on_enter_fit",
        "on_fit_start",
        "on_enter_validate_all",
        "on_enter_validate",
        "on_validate_batch_end",
    }


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"mode": "bar"}, "mode='bar': expected one of auto, live, lines, off."),
        ({"mode": "line"}, "mode='line': expected one of auto, live, lines, off. Did you mean lines?"),
        ({"refresh_seconds": 0}, "refresh_seconds=0: expected a positive number of seconds."),
        ({"every_seconds": "5"}, "every_seconds='5': expected a positive number of seconds."),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        ProgressLogger(**settings)
    assert str(caught.value) == line


class Counting(Callback):
    """Logs the step number at the end of the step."""

    def on_train_batch_end(self, trainer: Any, model: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        trainer.log_metrics(counted=trainer.global_step)


def test_a_training_line_includes_metrics_that_callbacks_log_in_the_same_step(
    capsys: pytest.CaptureFixture[str],
) -> None:
    fit(ProgressLogger(every_seconds=1e-9), callbacks=[Counting()])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    shown = [re.findall(r"step (\d)/6 .* counted (\d)", line) for line in lines]
    assert shown == [[(str(step), str(step))] for step in range(1, 7)]


class Writer(Callback):
    def __init__(self, logger: ProgressLogger) -> None:
        self._logger = logger

    def on_train_batch_end(self, *_: Any) -> None:
        self._logger.log_text({"sample": "\N{REPLACEMENT CHARACTER}"}, 1)


def test_characters_that_the_output_cannot_encode_are_escaped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, terminal: Terminal
) -> None:
    class Latin(io.TextIOWrapper):
        def isatty(self) -> bool:
            return is_terminal

    for is_terminal in (False, True):
        monkeypatch.setenv("COLUMNS", "40")  # narrower than the live line, so that its end is truncated
        shown = Latin(io.BytesIO(), encoding="latin-1", write_through=True)
        logger = ProgressLogger(refresh_seconds=0.001)
        writer = Writer(logger)
        with redirect_stdout(shown):
            fit(logger, callbacks=[writer])
        text = shown.buffer.getvalue().decode("latin-1")  # type: ignore[attr-defined]
        assert "\\ufffd" in text
        assert text.count(HIDE_CURSOR) == is_terminal and text.count(SHOW_CURSOR) >= is_terminal
