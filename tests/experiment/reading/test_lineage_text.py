"""The tree of a lineage: branches, folded jobs, states of checkpoints, and hostile texts."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.cells import cell_len

from left_runs import leave_run, write_run
from loopwright.experiment.reading.lineage_text import FIELDS, lineage_lines, lineage_rows
from loopwright.records.lineage import read_lineage


def start(run: Path, step: int = 10) -> dict[str, None]:
    return {f"{run}/checkpoints/step_{step:08}": None}


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    outputs = tmp_path / "outputs"
    first = leave_run(outputs, "00000a", checkpoints=[10, 2000], objective=0.5, global_step=2000)
    second = leave_run(outputs, "00000b", day=2, origins=start(first, 2000), resumes=[{"checkpoint": "step_00000040"}])
    sweep = outputs / "digits" / "2026-11-03_00-00-00_00000c_sweep"
    for number in range(3):
        write_run(sweep / str(number), origins=start(first), state="completed" if number else "failed")
    (sweep / "sweep.json").write_text("{}")
    validated = {path: None for step in (10, 2000) for path in start(first, step)}
    last = leave_run(outputs, "00000d", day=4, origins=validated | start(second, 7), state="stopped")
    return [first, second, last]


def test_the_tree_is_drawn(runs: list[Path]) -> None:
    outputs = runs[0].parent
    lines = lineage_lines(read_lineage(runs[0], [outputs.parent]), width=300)
    assert [line.replace(str(outputs), "digits") for line in lines] == [
        "00000a (this run)                          completed                   2,000 steps   val/loss 0.5"
        "   digits/2026-11-01_09-15-05_00000a",
        "├ 00000b            from step 2,000        completed                   100 steps                 "
        "   digits/2026-11-02_09-15-05_00000b",
        "│   resumed from step 40",
        "├ 00000c/0-2        from step 10           3 jobs: completed, failed                             "
        "   digits/2026-11-03_00-00-00_00000c_sweep",
        "└ 00000d            from steps 10, 2,000   stopped                     100 steps                 "
        "   digits/2026-11-04_09-15-05_00000d",
        "    also from 00000b, step 7",
    ]
    below = lineage_lines(read_lineage(runs[1], [outputs.parent]), width=300)
    heads = [
        "00000a",
        "└ 00000b (this run)",
        "  │ resumed from",
        "  └ 00000d",
        "      also from 00000a, step 10; 00000a,",
    ]
    assert len(below) == len(heads)
    assert all(line.startswith(head) for line, head in zip(below, heads, strict=True))


@pytest.mark.parametrize("width", [40, 80, 120])
def test_a_narrow_terminal_has_the_paths_on_their_own_lines(width: int, runs: list[Path]) -> None:
    tree = read_lineage(runs[0], [runs[0].parent.parent])
    lines = lineage_lines(tree, width=width, is_ascii=True)
    assert all(any(line.endswith(str(run)) for line in lines) for run in runs)
    longest = max(len(str(run)) for run in runs)
    assert all(cell_len(line) <= max(width, longest + 10, 90) for line in lines)
    assert all(line.isascii() for line in lines)


def test_rows_have_all_fields(runs: list[Path]) -> None:
    rows = lineage_rows(read_lineage(runs[1], [runs[0].parent.parent]))
    assert [row["id"] for row in rows] == ["00000a", "00000b", "00000d"]
    assert all(tuple(row) == FIELDS for row in rows)
    assert (rows[1]["above"], rows[1]["from_steps"], rows[1]["resumed_from"]) == (0, [2000], [40])
    assert rows[2]["also_from"] == ["00000a, step 10", "00000a, step 2,000"]


def test_hostile_texts_are_escaped(tmp_path: Path) -> None:
    hostile = "\x1b[31m\u202e\n"
    run = leave_run(
        tmp_path / "outputs",
        "00000a",
        name=hostile.strip(),
        state="failed",
        objective=1.0,
        objective_name=hostile,
        origins={f"{hostile}/checkpoints/step_00000010": {"run": hostile, "step": 3, "sha256": hostile}},
    )
    tree = read_lineage(run, [tmp_path / "outputs"])
    assert all(line.isprintable() for line in lineage_lines(tree, width=80))
