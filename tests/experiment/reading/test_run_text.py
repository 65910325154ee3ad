"""What ``loopwright show`` prints of a run: its state in words, its numbers, and the commands that fit its state."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from left_runs import leave_run, write_run
from loopwright.experiment.reading.run_text import run_text
from loopwright.experiment.reading.run_view import read_view

NOW = datetime(2026, 11, 1, 9, 17, 5, tzinfo=UTC)
VALUES = {
    "train/loss": [1.0, 0.5, 0.25, 0.125],
    "val/loss": [0.5, 0.25, 0.375, "NaN"],
    "val/accuracy": [0.5, 0.75, 1.0, 0.75],
}


def text_of(run: Path, *, width: int = 120) -> str:
    return run_text(read_view(run), now=NOW, width=width)


def test_a_run_on_one_screen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = leave_run(
        Path("outputs"),
        "6b7ccb",
        values=VALUES,
        checkpoints=[20, 40],
        config="loop: {max_steps: 100}\n",
        state="interrupted",
        global_step=40,
        objective="NaN",
        best={"name": "val/loss", "value": 0.25, "step": 20},
        changes={"optimizer.lr": [0.003, 0.01], "init_from": [None, "x"]},
        origins={"outputs/a/2026-10-01_00-00-00_123456/checkpoints/step_00000100": None},
        resumes=[{"checkpoint": "step_00000020"}],
        command="loopwright optimizer.lr=0.01",
    )
    local = read_view(run).entry.started
    assert local is not None
    assert text_of(run) == (
        "digits 6b7ccb: interrupted at step 40 of 100\n"
        "  outputs/digits/2026-11-01_09-15-05_6b7ccb\n"
        "\n"
        "  val/loss            NaN, best 0.25 at step 20\n"
        f"  time                1:00, started 2 min ago ({local.astimezone():%Y-%m-%d %H:%M})\n"
        "  resumed             1 time, from step_00000020\n"
        "  not as configured   optimizer.lr=0.01\n"
        "  from                123456, step 100\n"
        "  checkpoints         2, at step 20, 40; 4 bytes\n"
        "  command             loopwright optimizer.lr=0.01\n"
        "\n"
        "  metric         first   last    best    at step   course\n"
        "  val/loss       0.5     NaN     0.25    20        █▁▅×\n"
        "  train/loss     1       0.125   0.125   40        █▄▂▁\n"
        "  val/accuracy   0.5     0.75    1       30        ▁▅█▅\n"
        "\n"
        "Resume: loopwright resume outputs/digits/2026-11-01_09-15-05_6b7ccb\n"
        "Validate: loopwright validate outputs/digits/2026-11-01_09-15-05_6b7ccb\n"
        "Report: loopwright report outputs/digits/2026-11-01_09-15-05_6b7ccb"
    )


@pytest.mark.parametrize(
    ("state", "summary", "said"),
    [
        ("completed", {"global_step": 100}, "completed at step 100 of 100"),
        ("stopped", {"stop": {"by": "early_stopping", "reason": "val/loss is no better"}},
         "stopped at step 100 of 100, because val/loss is no better"),
        ("failed", {"global_step": 7, "error": "NonFiniteError: loss"}, "failed at step 7 of 100"),
        ("running", {}, "lost at step 40 of 100; its process has ended without recording an end"),
        ("other", {}, "unreadable; summary.json: contains no state"),
    ],
)  # fmt: skip
def test_the_state_in_words(state: str, summary: dict[str, Any], said: str, tmp_path: Path) -> None:
    if state == "running":
        summary = {"global_step": 0}
    run = leave_run(tmp_path, "6b7ccb", values=VALUES, **{"state": state, **summary})
    text = text_of(run)
    assert text.startswith(f"digits 6b7ccb: {said}\n")
    assert ("error" in text) == ("error" in summary)


OVERFITS = "loop: {max_steps: 100}\ncallbacks: {one: {_target_: loopwright.callbacks.OverfitOneBatch}}"
SWEEP = "2026-11-01_00-00-00_abcdef_sweep"


@pytest.mark.parametrize(
    ("state", "checkpoints", "config", "labels"),
    [
        ("completed", [100], "loop: {max_steps: 100}", ["Train for longer", "Validate", "Reproduce"]),
        ("completed", [100], "loop: {max_steps: 99}", ["Validate", "Reproduce"]),
        ("completed", [], "loop: {max_steps: 100}", ["Reproduce"]),
        ("completed", [], "loop: {_target_: loopwright.ValidationLoop}", []),
        ("completed", [100], OVERFITS, ["Validate", "Reproduce"]),
        ("completed", [], "callbacks: [1]", ["Reproduce"]),
        ("stopped", [100], "", ["Validate", "Reproduce"]),
        ("interrupted", [50], "", ["Resume", "Validate"]),
        ("failed", [50], "", ["Resume", "Validate"]),
        ("failed", [], "", []),
        ("running", [50], "", ["Resume", "Validate"]),  # lost
        ("running", [], "", []),
        ("unknown", [], "", []),
    ],
)  # fmt: skip
def test_the_commands_fit_the_state(
    state: str, checkpoints: list[int], config: str, labels: list[str], tmp_path: Path
) -> None:
    run = leave_run(tmp_path, "6b7ccb", state=state, checkpoints=checkpoints, config=config)
    (run / "plan.json").write_text('{"settings": {"stop_step": 100, "loop.max_steps": 100}}')
    commands = read_view(run).commands
    assert list(commands) == [*labels, *(["Report"] if state != "unknown" else [])]
    if "Train for longer" in labels:
        assert commands["Train for longer"].endswith("6b7ccb loop.max_steps=200")


@pytest.mark.parametrize(("state", "ending"), [("failed", "sweep retry {} jobs=3"), ("interrupted", "sweep resume {}")])
def test_the_commands_of_a_job_are_those_of_its_sweep(state: str, ending: str, tmp_path: Path) -> None:
    sweep = tmp_path / "digits" / SWEEP
    run = write_run(sweep / "3", state=state)
    (sweep / "sweep.json").write_text("{}")
    view = read_view(run)
    assert view.entry.id == "abcdef/3" and view.entry.name == "digits"
    assert f"loopwright {ending.format(sweep)}" in view.commands.values()


def test_a_run_whose_data_can_be_encoded_again_can_predict(tmp_path: Path) -> None:
    run = leave_run(tmp_path, "6b7ccb", checkpoints=[100])
    (run / "data.json").write_text('{"data": "csv"}')
    assert read_view(run).commands["Predict for new data"] == f"loopwright predict {run} data.path=FILE"


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_the_lines_fit_the_terminal(width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    values = {**VALUES, **{f"val/metric{number}": [0.1, 0.2] for number in range(20)}}
    run = leave_run(Path("o"), "6b7ccb", values=values, error="e " * 200, checkpoints=range(10, 100, 10))
    lines = text_of(run, width=width).splitlines()
    assert all(cell_len(line) <= width for line in lines if "2026-11-01_" not in line and "metric" not in line)
    assert any("and 11 more metrics" in line for line in lines)
    assert any("9, at step 10, …, " in line for line in lines)


def test_texts_of_a_stranger_are_printable(tmp_path: Path) -> None:
    hostile = "\x1b[31m\n\u202e" * 3
    run = leave_run(
        tmp_path,
        "6b7ccb",
        state="failed",
        values={hostile: [1.0]},
        error=hostile,
        command=hostile,
        changes={hostile: [hostile, hostile]},
        origins={hostile: None},
        resumes=[{"checkpoint": hostile}],
        objective_name=hostile,
        objective=0.5,
    )
    assert text_of(run).replace("\n", "").isprintable()
