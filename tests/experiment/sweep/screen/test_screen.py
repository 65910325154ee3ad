"""The texts of a sweep that runs, at 40, 80 and 120 columns and in a file; the live part, and the restored terminal."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopwright.experiment.sweep.index import SweepIndex
from loopwright.experiment.sweep.index_file import write_index
from loopwright.experiment.sweep.screen.following import Progress, RunningJob
from loopwright.experiment.sweep.screen.lines import bottom_line, head, job_labels, job_line, running_lines
from loopwright.experiment.sweep.screen.screen import Screen, is_same_output
from swept import DIRECTORY, sweeps, swept

SHOW_CURSOR, HIDE_CURSOR = "\x1b[?25h", "\x1b[?25l"
KEY = "loop.grad_accum_steps"
VALUES = [{KEY: 1}, {KEY: 2}, {KEY: 4}]
INDEX = swept(
    VALUES, [[0.0728, "running"], ["failed", "running"], ["pending", "pending"]], best={0: 0.0705}, steps={0: 2000}
)
INDEX = replace(
    INDEX, settings={"num_parallel": 2}, jobs=tuple(replace(job, num_steps=2000, seconds=12.0) for job in INDEX.jobs)
)
LABELS = job_labels(INDEX)
RUNNING = [
    RunningJob(entry=INDEX.jobs[number], progress=found, seconds=6.0)
    for number, found in (
        (1, Progress(step=900, metric="val/loss", value=0.1042, steps_per_second=171, seconds_left=6.6)),
        (3, Progress(step=380, metric="val/loss", value=0.1663, steps_per_second=160, seconds_left=10.1)),
    )
]
RUNNING = [replace(job, progress=replace(job.progress, num_steps=2000)) for job in RUNNING]


def line_of(number: int, width: int | None, **changes: Any) -> str:
    return job_line(replace(INDEX.jobs[number], **changes), LABELS[number], width, objective="val/loss")


def test_the_head() -> None:
    first, second = head(INDEX, 2, 1, Path(DIRECTORY)).split("\n")
    assert first == f"Sweep: 6 jobs, 3 values of {KEY} × 2 seeds; objective val/loss (min); 2 at a time, 1 thread each"
    assert second == f"Directory: {DIRECTORY}"
    search = replace(INDEX, settings={"search": "tpe", "num_proposals": 40})
    assert head(search, 1, 2, Path()).startswith(
        f"Sweep: 80 jobs, 40 proposals of {KEY} × 2 seeds; objective val/loss (min); one at a time, 2 threads each\n"
    )
    assert head(swept([{}], [[0.5, 0.25]]), 1, 1, Path()).startswith("Sweep: 2 jobs, 2 seeds; ")
    assert head(swept([{"a": 1}], [[0.5]]), 1, 1, Path()).startswith("Sweep: 1 job, 1 value of a; ")
    assert head(replace(INDEX, seeds=(0, 1, 2)), 1, 1, Path()).startswith(f"Sweep: 6 jobs, 3 values of {KEY}, 3 seeds")


def test_labels_have_the_shortest_keys_that_differ() -> None:
    values = {"model.width": 8, "encoder.width": 4, "optimizer.lr": 0.001, "data.seed": 3, "model": "mlp"}
    index = swept([values], [[0.5]], fixed=["name=x"])
    words = "model.width=8 encoder.width=4 lr=0.001 data.seed=3 model=mlp seed=0"
    assert job_labels(index) == {0: words}
    typed = replace(index.jobs[0], overrides=("+optimizer.lr=1e-3", "seed=0"))
    assert job_labels(replace(index, jobs=(typed,))) == {0: words.replace("0.001", "1e-3")}


def test_a_job_that_is_done() -> None:
    whole = "  job 0  grad_accum_steps=1 seed=0   done     val/loss 0.0728 (best 0.0705 at 1,600)   2,000 steps   0:12"
    assert [line_of(0, width) for width in (None, 120)] == [whole, whole]
    assert line_of(0, 80) == "  job 0  grad_accum_steps=1 seed=0  done    val/loss 0.0728  2,000 steps  0:12"
    assert line_of(0, 40) == "  job 0  grad_accum_steps=1 seed=0\n    done  val/loss 0.0728  0:12"


def test_jobs_with_other_states() -> None:
    begin = "  job 0  grad_accum_steps=1 seed=0   "
    assert line_of(0, 120, state="skipped", objective=None, best=None, global_step=0, attempts=(), seconds=0) == (
        f"{begin}skipped"
    )
    assert line_of(0, 120, state="pruned", best=None, global_step=600) == (
        f"{begin}pruned   val/loss 0.0728   600 of 2,000 steps   0:12"
    )
    assert line_of(0, 120, state="interrupted", objective=None, best=None, global_step=1) == (
        f"{begin}interrupted   1 of 2,000 steps   0:12"
    )
    assert line_of(0, 120, objective=float("nan"), best={"name": "val/loss", "step": 1, "value": "NaN"}) == (
        f"{begin}done     val/loss not finite   2,000 steps   0:12"
    )
    assert line_of(0, 120, state="failed") == f"{begin}failed   (0/run.log)"


def test_a_failed_job_keeps_the_path_of_its_log() -> None:
    error = "RuntimeError: boom at step 20. Raised in callback boom.on_train_batch_end."
    assert line_of(2, None) == f"  job 2  grad_accum_steps=2 seed=0   failed   {error} (2/run.log)"
    assert line_of(2, 122) == (
        "  job 2  grad_accum_steps=2 seed=0   failed   RuntimeError: boom at step 20. Raised in callback"
        " boom.on_train_batch_end.\n         (2/run.log)"
    )
    assert line_of(2, 80) == (
        "  job 2  grad_accum_steps=2 seed=0  failed  RuntimeError: boom at step 20.\n"
        "         Raised in callback boom.on_train_batch_end. (2/run.log)"
    )
    assert line_of(2, 40) == (
        "  job 2  grad_accum_steps=2 seed=0\n"
        "    failed  RuntimeError: boom at step\n"
        "    20. Raised in callback\n"
        "    boom.on_train_batch_end. (2/run.log)"
    )
    long = line_of(2, 80, error="ValueError: " + "expected a shape " * 100)
    assert long.count("\n") == 4
    assert long.endswith("… (2/run.log)")
    assert line_of(2, None, error="see (2/run.log)").endswith("failed   see (2/run.log)")


def test_running_jobs() -> None:
    one, two = running_lines(RUNNING, LABELS, 120)
    assert one == f"  job 1  {LABELS[1]}   ━━━━━━━━━╸──────────   900/2,000   val/loss 0.1042   171 steps/s   0:07 left"
    assert two == f"  job 3  {LABELS[3]}   ━━━╸────────────────   380/2,000   val/loss 0.1663   160 steps/s   0:10 left"
    assert running_lines(RUNNING, LABELS, 80) == [
        "  job 1  grad_accum_steps=1 seed=1  ━━━━╸─────  900/2,000  val/loss 0.1042",
        "  job 3  grad_accum_steps=2 seed=1  ━╸────────  380/2,000  val/loss 0.1663",
    ]
    assert running_lines(RUNNING, LABELS, 40) == [
        "  job 1  grad_accum_steps=1 seed=1\n    ━━━━╸─────  900/2,000  0:07 left",
        "  job 3  grad_accum_steps=2 seed=1\n    ━╸────────  380/2,000  0:10 left",
    ]


def test_the_bar_of_a_job_without_metrics_moves() -> None:
    jobs = [RUNNING[0], replace(RUNNING[1], progress=Progress(num_steps=2000))]
    texts = [running_lines(jobs, LABELS, 80, tick=tick)[1] for tick in range(2)]
    assert texts == [
        "  job 3  grad_accum_steps=2 seed=1  ━━━───────  no metrics yet  0:06",
        "  job 3  grad_accum_steps=2 seed=1  ─━━━──────  no metrics yet  0:06",
    ]


def test_the_bottom_line() -> None:
    whole = "2 of 6 jobs ended, 1 failed · 0:25 so far, about 0:40 left"
    assert [bottom_line(INDEX, 25, 38.5, width) for width in (120, 80, len(whole))] == [whole] * 3
    assert bottom_line(INDEX, 25, 38.5, 40) == "2 of 6 ended, 1 failed · 0:25, 0:40 left"
    assert bottom_line(INDEX, 25, None, 80) == "2 of 6 jobs ended, 1 failed · 0:25 so far"
    assert bottom_line(INDEX, 25, 38.5, 20) == "2 of 6 ended, 1 fail"
    states = swept([{"a": 1}], [["failed", "pruned", "skipped", 0.5, "pending"]])
    assert bottom_line(states, 3700, 681, 120) == (
        "4 of 5 jobs ended, 1 failed, 1 pruned, 1 skipped · 1:01:40 so far, about 12:00 left"
    )


@given(index=sweeps(), width=st.integers(40, 130))
@settings(max_examples=25, deadline=None)
def test_no_line_is_wider_than_the_terminal(index: SweepIndex, width: int) -> None:
    labels = job_labels(index)
    texts = [bottom_line(index, 10, 20, width)]
    for job in index.jobs:
        texts.append(job_line(job, labels[job.number], width, objective="val/loss", number_width=3))
        texts += running_lines([replace(RUNNING[0], entry=job)], labels, width, number_width=3)
        assert "\n" not in job_line(job, labels[job.number], None, objective="val/loss")
    assert max(len(line) for text in texts for line in text.split("\n")) <= width


def test_one_file_with_two_handles_is_the_same_output(tmp_path: Path) -> None:
    with (tmp_path / "a").open("w") as one, (tmp_path / "a").open("a") as two, (tmp_path / "b").open("w") as other:
        assert is_same_output(one, two)
        assert not is_same_output(one, other)
    text = io.StringIO()
    assert is_same_output(text, text)
    assert not is_same_output(text, sys.stderr)
    assert not is_same_output(one, two)  # closed files


class Terminal(io.StringIO):
    """A terminal that interprets the control sequences for the lines of a live display."""

    def isatty(self) -> bool:
        return True

    @property
    def lines(self) -> list[str]:
        """What the terminal shows, without empty lines."""
        shown, row = [""], 0
        for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", self.getvalue()):
            if part == "\n":
                row += 1
                shown += [""] * (row + 1 - len(shown))
            elif part == "\x1b[2K":
                shown[row] = ""
            elif part == "\x1b[1A":
                row -= 1
            elif part[0] not in "\x1b\r":
                shown[row] += part
        return [line.rstrip() for line in shown if line.strip()]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    return Terminal()


class Sweep:
    """A sweep whose index changes while its screen is open. Its clock shows ``seconds``."""

    def __init__(self, directory: Path, stream: TextIO, **settings: Any) -> None:
        self.index, self.seconds = INDEX, 0.0
        self.screen = Screen(
            lambda: self.index,
            directory,
            stream=stream,
            get_seconds=lambda: self.seconds,
            refresh_seconds=1e6,  # the thread draws nothing during the test, but each printed line does
            **settings,
        )

    def end(self, number: int, state: str) -> None:
        error = "RuntimeError: x." if state == "failed" else None
        job = replace(INDEX.jobs[number], state=state, objective=0.5, seconds=7.0, error=error)
        self.index = self.index.with_job(job)
        self.screen.job_ended(job)


BOTTOM = "2 of 6 jobs ended, 1 failed · 0:00 so far, about 0:25 left"
DONE = "  job 1  grad_accum_steps=1 seed=1  done    val/loss 0.5  2,000 steps  0:07"


def test_running_jobs_are_drawn_below_permanent_lines(tmp_path: Path, terminal: Terminal) -> None:
    sweep = Sweep(tmp_path, terminal)
    with sweep.screen:
        first, second, last = terminal.lines
        assert re.fullmatch("  job 1  grad_accum_steps=1 seed=1  [━─]{10}  no metrics yet  0:00", first)
        assert re.fullmatch("  job 3  grad_accum_steps=2 seed=1  [━─]{10}  no metrics yet  0:00", second)
        assert last == BOTTOM
        sweep.seconds = 3.0
        (tmp_path / "3").mkdir()
        (tmp_path / "3" / "metrics.jsonl").write_text('{"step": 1000, "name": "train/loss", "value": 0.25}\n')
        sweep.end(1, "done")
        sweep.screen.say("a note")
        assert terminal.lines == [
            DONE,
            "a note",
            "  job 3  grad_accum_steps=2 seed=1  ━━━━━╸────  1,000/2,000  train/loss 0.25",
            "3 of 6 jobs ended, 1 failed · 0:03 so far, about 0:20 left",
        ]
    assert terminal.lines == [DONE, "a note"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_the_terminal_is_restored_after_an_error(
    tmp_path: Path, terminal: Terminal, error: type[BaseException]
) -> None:
    sweep = Sweep(tmp_path, terminal)
    with redirect_stdout(terminal):
        with pytest.raises(error), sweep.screen:
            assert sys.stdout is not terminal
            print("text of a job")
            raise error
        assert sys.stdout is terminal
    assert terminal.lines == ["text of a job"]
    assert terminal.getvalue().count(HIDE_CURSOR) == 1
    assert terminal.getvalue().rindex(SHOW_CURSOR) > terminal.getvalue().rindex(HIDE_CURSOR)


def test_an_error_of_the_first_drawing_restores_the_terminal(tmp_path: Path, terminal: Terminal) -> None:
    indices = iter([INDEX])
    screen = Screen(lambda: next(indices), tmp_path, stream=terminal)
    with redirect_stdout(terminal), pytest.raises(StopIteration), screen:
        pass
    assert terminal.getvalue().rindex(SHOW_CURSOR) > terminal.getvalue().rindex(HIDE_CURSOR)


def test_colours(tmp_path: Path, terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    with (sweep := Sweep(tmp_path, terminal)).screen:
        sweep.end(1, "done")
    assert "\x1b[32mdone\x1b[0m" in terminal.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    plain = Terminal()
    with (sweep := Sweep(tmp_path, plain)).screen:
        sweep.end(1, "done")
    assert not re.search(r"\x1b\[[0-9;]*m", plain.getvalue())
    assert plain.lines == terminal.lines == [DONE]


def test_more_jobs_than_lines(tmp_path: Path, terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    index = swept([{"a": 1}], [["running"] * 30])
    for lines, num_shown in (("24", 15), ("8", 3), ("2", 0)):
        monkeypatch.setenv("LINES", lines)
        terminal.truncate(0)
        with Screen(lambda: index, tmp_path, stream=terminal, refresh_seconds=1e6):
            *shown, last = terminal.lines
            assert last == "0 of 30 jobs ended · 0:00 so far"
            if num_shown:
                assert shown[-1] == f"  and {30 - num_shown} more running"
                assert len(shown) == num_shown + 1


def test_a_file_has_one_line_per_ended_job(
    tmp_path: Path, terminal: Terminal, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = io.StringIO()
    with (sweep := Sweep(tmp_path, file)).screen:
        sweep.end(1, "done")
        sweep.end(3, "failed")
    assert file.getvalue() == (
        "  job 1  grad_accum_steps=1 seed=1   done     val/loss 0.5   2,000 steps   0:07\n"
        "  job 3  grad_accum_steps=2 seed=1   failed   RuntimeError: x. (3/run.log)\n"
    )
    assert capsys.readouterr().err == "job 3 failed: RuntimeError: x. (3/run.log)\n"
    monkeypatch.setenv("TERM", "dumb")
    with (sweep := Sweep(tmp_path, terminal)).screen:
        sweep.end(1, "done")
    assert terminal.getvalue() == f"{DONE}\n"


def test_an_error_is_printed_once_if_both_outputs_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "log").open("a") as stdout, (tmp_path / "log").open("a") as stderr:
        monkeypatch.setattr("sys.stderr", stderr)
        with Screen(lambda: INDEX, tmp_path, stream=stdout) as screen:
            screen.job_ended(INDEX.jobs[2])
    assert (tmp_path / "log").read_text().count("boom at step 20") == 1


def test_an_output_that_lacks_the_characters_of_the_bar(tmp_path: Path, terminal: Terminal) -> None:
    raw = io.BytesIO()
    with io.TextIOWrapper(raw, encoding="ascii") as stream:
        with (sweep := Sweep(tmp_path, stream, is_live=True)).screen:
            sweep.end(1, "done")
        terminal.write(raw.getvalue().decode())
    assert re.search(r"seed=1  [=-]{10}  no metrics yet", terminal.getvalue())
    assert "1 failed - 0:00 so far" in re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue())


def test_a_closed_pipe_does_not_end_the_sweep(tmp_path: Path) -> None:
    script = """
import os, sys
from pathlib import Path
from loopwright.experiment.sweep.index_file import read_index
from loopwright.experiment.sweep.screen.screen import Screen
index = read_index(Path(sys.argv[1]))
with Screen(lambda: index, Path(sys.argv[1]), stream=sys.stdout) as screen:
    screen.job_ended(index.jobs[0])
    screen.job_ended(index.jobs[0])
print("end", file=sys.stderr)
print([name for name in ("torch", "hydra", "omegaconf") if name in sys.modules], file=sys.stderr)
"""
    write_index(tmp_path, INDEX)
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-P", "-c", script, str(tmp_path)]
    ended = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (ended.returncode, ended.stderr) == (0, "end\n[]\n")
