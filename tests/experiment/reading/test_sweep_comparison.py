"""The comparison of sweeps as lines and as rows, over indexes written by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rich.cells import cell_len

from left_runs import write_run
from loopwright.experiment.reading.sweep_comparison import read_sweep_comparison, sweep_comparison_lines, sweep_rows
from loopwright.experiment.sweep.index import Objective, SweepIndex
from loopwright.experiment.sweep.index_file import write_index
from swept import swept

CONFIG = (
    "model: {{hidden: [4], dropout: {dropout}}}\noptimizer: {{lr: 0.1}}\nloop: {{max_steps: {max_steps}}}\nseed: 0\n"
)


def leave_sweep(directory: Path, index: SweepIndex, *, dropout: float, max_steps: int) -> Path:
    """Write an index, and the configuration and the environment of its first job."""
    config = CONFIG.format(dropout=dropout, max_steps=max_steps)
    write_run(directory / "0", config=config, objective=index.jobs[0].objective)
    (directory / "0" / "environment.json").write_text(f'{{"python": "3.{max_steps}"}}')
    write_index(directory, index)
    return directory


def two_sweeps(root: Path) -> list[Path]:
    rates = [{"optimizer.lr": 0.1}, {"optimizer.lr": 0.2}]
    one = swept(rates, [[1.0, 2.0, 3.0], [4.0, 4.0, "failed"]])
    values = [{"optimizer.lr": lr, "model.dropout": dropout} for lr in (0.1, 0.3) for dropout in (0.0, 0.5)]
    two = swept(values, [[0.5, 1.0, 2.5], [1.0, 1.0, 1.0], [9.0, 9.0, 9.0], ["pending", "pending", "pending"]])
    return [
        leave_sweep(root / "one", one, dropout=0.5, max_steps=10),
        leave_sweep(root / "two", two, dropout=0.0, max_steps=12),
    ]


def test_two_sweeps_side_by_side(tmp_path: Path) -> None:
    found = read_sweep_comparison(two_sweeps(tmp_path))
    assert sweep_comparison_lines(found, width=120, shows_all=False) == [
        "                       one                  two                  difference, same seeds",
        "  state                5 of 6 done          9 of 12 done",
        "  time                 1:00                 1:00",
        "  best                 lr=0.1 dropout=0.5   lr=0.1 dropout=0.5",
        "",
        "val/loss, mean ± s.d.",
        "  lr=0.1 dropout=0.5   2.0 ± 1.0            1 ± 0                −1.0 ± 1.0, 2 of 3",
        "  lr=0.2 dropout=0.5   4 ± 0 (2 of 3)       –",
        "  lr=0.1 dropout=0.0   –                    1.3 ± 1.0",
        "  lr=0.3 dropout=0.0   –                    9 ± 0",
        "  lr=0.3 dropout=0.5   –                    pending",
        "",
        "configuration",
        "  loop.max_steps       10                   12",
        "",
        "environment",
        "  python               3.10                 3.12",
        "",
        "Equal: source.",
        "Not compared: data (no record).",
    ]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_is_wider_than_the_terminal(width: int, tmp_path: Path) -> None:
    lines = sweep_comparison_lines(read_sweep_comparison(two_sweeps(tmp_path)), width=width, shows_all=True)
    assert max(map(cell_len, lines)) <= width
    assert sum("dropout=" in line for line in lines) >= 6


def test_rows_have_the_results_of_each_group(tmp_path: Path) -> None:
    found = read_sweep_comparison(two_sweeps(tmp_path))
    rows = {(row["section"], row["name"]): [row["one"], row["two"]] for row in sweep_rows(found)}
    assert rows["mean", "lr=0.2 dropout=0.5"] == [4.0, None]
    assert rows["num_done", "lr=0.3 dropout=0.5"] == [None, 0]
    assert rows["num_better", "lr=0.1 dropout=0.5"] == [None, 2]
    assert rows["sweep", "num_jobs"] == [6, 12] and rows["configuration", "loop.max_steps"] == [10, 12]
    assert ("p_value", "lr=0.1 dropout=0.5") not in rows


def test_sweeps_with_other_objectives_have_no_difference(tmp_path: Path) -> None:
    first, second = two_sweeps(tmp_path)
    other = replace(swept([{"a": 1}], [[1.0]]), objective=Objective(name="val/accuracy", mode="max"))
    write_index(second, other)
    lines = sweep_comparison_lines(read_sweep_comparison([first, second]), width=120, shows_all=False)
    assert lines[0].split() == ["one", "two"] and "  objective" in "\n".join(lines)
    assert "objective, mean ± s.d." in lines


def test_three_sweeps_have_three_columns(tmp_path: Path) -> None:
    first, second = two_sweeps(tmp_path / "a")
    third = two_sweeps(tmp_path / "b")[0].rename(tmp_path / "three")
    lines = sweep_comparison_lines(read_sweep_comparison([first, second, third]), width=200, shows_all=False)
    assert any(line.count("2.0 ± 1.0") == 2 for line in lines)


def test_a_sweep_without_a_job_that_has_begun(tmp_path: Path) -> None:
    (first, _) = two_sweeps(tmp_path)
    (tmp_path / "new" / "0").mkdir(parents=True)
    (tmp_path / "new" / "0" / "config.yaml").write_text(CONFIG.format(dropout=0.5, max_steps=11))
    write_index(tmp_path / "new", swept([{"optimizer.lr": 0.1}], [["pending"]]))
    found = read_sweep_comparison([first, tmp_path / "new"])
    lines = sweep_comparison_lines(found, width=120, shows_all=False)
    assert any(line.split() == ["loop.max_steps", "10", "11"] for line in lines)
    assert "Not compared: environment (new did not record it)." in lines
