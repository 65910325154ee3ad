from __future__ import annotations

import dataclasses
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopwright.errors import SettingError
from loopwright.experiment.sweep.index import SweepIndex
from loopwright.experiment.sweep.tables.cell_text import headings, job_numbers_text, measured_text, number_text
from loopwright.experiment.sweep.tables.group_table import group_table
from loopwright.experiment.sweep.tables.results_table import MAX_ROWS, results_text, table_lines
from swept import DIRECTORY, sweeps, swept

KEY = "loop.grad_accum_steps"
VALUES = [{KEY: 1}, {KEY: 2}, {KEY: 4}]
LONG = "warmup_cosine_with_restarts_and_a_long_description_of_its_phases_in_one_single_word_without_any_space"


def drawing() -> SweepIndex:
    """Return the sweep that the documentation of sweeps shows."""
    accuracies = {0: 0.978, 1: 0.978, 3: 0.98, 4: 0.982, 5: 0.982}
    return swept(
        VALUES,
        [[0.0713, 0.0743], ["failed", 0.0702], [0.06605, 0.06735]],
        metrics={job: {"val/accuracy": value, "train/loss": 0.01, "lr": 0.1} for job, value in accuracies.items()},
        best={0: 0.07, 1: 0.071, 3: 0.069, 4: 0.065, 5: 0.066},
    )


def table(index: SweepIndex, width: int = 200, sort: str | None = None) -> str:
    return "\n".join(table_lines(group_table(index, sort=sort), width))


def first_column(index: SweepIndex, sort: str | None = None) -> list[str]:
    return [row.cells[0] for row in group_table(index, sort=sort).rows]


def test_the_drawing_at_120_columns() -> None:
    assert results_text(drawing(), DIRECTORY, width=120) == (
        """\
  grad_accum_steps   val/loss, mean ± s.d. of 2   best     val/accuracy   against 1, same seeds      jobs
▸ 4                  0.0667 ± 0.0009              0.0655   0.982          −0.0061 ± 0.0012, 2 of 2   4 5
  1                  0.0728 ± 0.0021              0.0705   0.978          –                          0 1
  2                  0.0702 (1 of 2)              0.0690   0.980          −0.0041, 1 of 1            2✗ 3
Comparison: too few seeds for a test (at least 6).
job 2 failed: RuntimeError: boom at step 20. Raised in callback boom.on_train_batch_end. (2/run.log)
5 of 6 jobs done, 1 failed, in 0:06. Best: loop.grad_accum_steps=4
Tables: sweep.csv, sweep.md   Run the best: loopwright loop.grad_accum_steps=4 seed=0
Retry what failed: loopwright sweep retry outputs/digits/2026-11-30_10-02-11_7d1c4e_sweep"""
    )


def test_the_drawing_at_80_columns() -> None:
    assert results_text(drawing(), DIRECTORY, width=80) == (
        """\
  grad_accum_steps   val/loss, mean ± s.d. of 2   best     jobs
▸ 4                  0.0667 ± 0.0009              0.0655   4 5
  1                  0.0728 ± 0.0021              0.0705   0 1
  2                  0.0702 (1 of 2)              0.0690   2✗ 3
job 2 failed: RuntimeError: boom at step 20. Raised in callback boom.on_train_batch_end. (2/run.log)
5 of 6 jobs done, 1 failed, in 0:06. Best: loop.grad_accum_steps=4
Tables: sweep.csv, sweep.md
Run the best: loopwright loop.grad_accum_steps=4 seed=0
Retry what failed: loopwright sweep retry outputs/digits/2026-11-30_10-02-11_7d1c4e_sweep"""
    )


def test_metrics_are_left_out_before_the_comparison() -> None:
    assert "against" in table(drawing(), 91) and "accuracy" not in table(drawing(), 91)
    assert "accuracy" in table(drawing(), 120)


def test_two_factors_are_compared_with_the_baseline() -> None:
    values = [{"loop.grad_accum_steps": steps, "optimizer.lr": rate} for steps in (1, 2) for rate in (0.003, 0.1)]
    text = table(swept(values, [[1.1, 1.2], [0.5, 0.6], [0.9, 0.8], [0.4, 0.5]]), 110)
    assert "against the baseline, same seeds" in text and "Comparison: too few seeds" in text


def test_long_values_make_blocks() -> None:
    index = swept([{"scheduler": "none", "a.b": 1}, {"scheduler": LONG, "a.b": 2}], [[0.5, 0.7], [0.25, 0.5]])
    assert table(index, 80) == (
        f"""\
▸ scheduler:
{LONG}
  b: 2
  val/loss, mean ± s.d. of 2: 0.38 ± 0.18
  against the baseline, same seeds: −0.225 ± 0.035, 2 of 2
  jobs: 2 3

  scheduler: none
  b: 1
  val/loss, mean ± s.d. of 2: 0.60 ± 0.14
  against the baseline, same seeds: baseline
  jobs: 0 1

Comparison: too few seeds for a test (at least 6)."""
    )


def test_a_long_baseline_is_not_part_of_the_heading() -> None:
    text = table(swept([{"scheduler": LONG}, {"scheduler": "none"}], [[0.5], [0.25]]))
    assert "against the baseline   jobs" in text and re.search(f"{LONG} +0.50 +baseline +0", text)


def test_one_seed_has_no_deviation() -> None:
    assert table(swept(VALUES, [[0.512345], [0.6], ["failed"]])) == (
        """\
  grad_accum_steps   val/loss   against 1   jobs
▸ 1                  0.5123     –           0
  2                  0.6000     +0.08765    1
  4                  failed                 2✗"""
    )


def test_the_p_value_is_shown_from_six_pairs() -> None:
    text = table(swept(VALUES[:2], [[1.0, 1.1, 1.2, 1.3, 1.4, 1.5], [0.5, 0.7, 0.7, 0.9, 0.9, 1.1]]))
    assert "−0.45 ± 0.05, 6 of 6, p = 0.031" in text and "too few" not in text


def test_a_sweep_over_seeds_has_one_row() -> None:
    index = swept([{}], [[0.5, 0.75, 0.7]])
    text = results_text(index, "DIR", width=120)
    assert text.splitlines()[:2] == [
        "  settings        val/loss, mean ± s.d. of 3   jobs",
        "  as configured   0.65 ± 0.13                  0 1 2",
    ]
    assert text.splitlines()[2:] == ["3 of 3 jobs done, in 0:03.", "Tables: sweep.csv, sweep.md"]


def test_a_group_without_a_result_shows_the_states_of_its_jobs() -> None:
    values = [{"a": number} for number in range(5)]
    results = [["running"] * 2, ["pending"] * 2, ["failed", "pending"], [float("nan"), "skipped"], [0.5, "running"]]
    rows = group_table(swept(values, results, state="running")).rows
    assert [row.cells[1] for row in rows] == [
        "0.5 (1 of 2)",
        "running",
        "pending",
        "1 failed, 1 pending",
        "1 skipped, 1 no value",
    ]


def test_mode_max_sorts_the_largest_mean_first() -> None:
    results = [[0.5], [0.9], [0.7]]
    assert first_column(swept(VALUES, results, mode="min")) == ["1", "4", "2"]
    assert first_column(swept(VALUES, results, mode="max")) == ["2", "4", "1"]
    assert "▸ 2 " in table(swept(VALUES, results, mode="max"))


def test_rows_are_sorted_by_a_factor_or_a_metric() -> None:
    metrics = {0: {"val/accuracy": 0.8}, 1: {"val/accuracy": 0.9}, 2: {"val/error": 0.1}}
    index = swept(VALUES, [[0.5], [0.4], [0.3]], metrics=metrics)
    assert first_column(index, KEY) == first_column(index, "grad_accum_steps") == ["1", "2", "4"]
    assert first_column(index, "val/loss") == ["4", "2", "1"]
    assert first_column(index, "val/accuracy") == ["2", "1", "4"]
    assert first_column(index, "val/error") == ["4", "1", "2"]
    with pytest.raises(SettingError) as caught:
        results_text(index, "DIR", width=80, sort="val/acuracy")
    assert str(caught.value) == (
        "sort=val/acuracy: no such column. Available: grad_accum_steps, val/loss, val/accuracy, val/error. "
        "Did you mean val/accuracy?"
    )


def test_the_chosen_metrics_have_columns() -> None:
    found = {"val/a": 1.0, "val/b": 2.0, "val/c": 3.0, "val/d": 4.0, "val/loss": 0.5, "lr": 0.1}
    index = swept(VALUES, [[0.5]] * 3, metrics={0: found})
    assert [c.heading for c in group_table(index).columns if c.kind == "metric"] == ["val/a", "val/b", "val/c"]
    chosen = dataclasses.replace(index, settings={"columns": ["lr"]})
    assert [c.heading for c in group_table(chosen).columns if c.kind == "metric"] == ["lr"]


def test_only_twenty_groups_and_the_best_group_are_shown() -> None:
    values = [{"a": number} for number in range(50)]
    index = swept(values, [[float(number)] for number in range(49)] + [["failed"]])
    lines = results_text(index, "DIR", width=80).splitlines()
    assert lines[20].split()[0] == "19"
    assert lines[21] == "  and 30 more groups; sort=KEY changes the order, sweep.md lists all"
    assert lines[22].startswith("job 49 (a=49) failed: RuntimeError")
    lines = table(swept(values, [[-float(number)] for number in range(50)]), sort="a").splitlines()
    assert lines[21].startswith("▸ 49 ") and lines[22].startswith("  and 29 more groups")
    assert "and 1 more group;" in table(swept(values[:21], [[1.0]] * 21, mode="max"))


def test_jobs_select_groups_and_errors() -> None:
    index = swept(VALUES, [["failed"], ["failed"], [0.5]])
    lines = results_text(index, "DIR", width=80, jobs=[1]).splitlines()
    assert [line.split()[:2] for line in lines[1:3]] == [["2", "failed"], ["job", "1"]]
    assert "job 0 failed:" not in results_text(index, "DIR", width=80, with_failures=False)


def test_a_tie_is_reported() -> None:
    results = [[0.50, 0.54], [0.53, 0.53], [0.9, 0.9]]
    text = results_text(swept(VALUES, results), "DIR", width=80)
    tied = f"Tied within one standard error: {KEY}=1; {KEY}=2."
    assert f"\n{tied}\n" in text and f"Best: {KEY}=1\n" in text
    text = results_text(swept(VALUES, results, steps={0: 2000, 1: 2000, 2: 1000, 3: 1000}), "DIR", width=80)
    assert f"\n{tied} The best group is the one with the fewest steps.\n" in text and f"Best: {KEY}=2\n" in text
    assert "Tied" not in results_text(swept(VALUES, [[0.5], [0.5], [0.9]]), "DIR", width=80)


def test_commands_contain_flags_and_threads() -> None:
    index = swept(
        [{"name": "a"}, {"name": "b c"}],
        [["interrupted"], [0.5]],
        trust=["--trust=my package"],
        config_dir="my conf",
        fixed=["model=cnn"],
        state="interrupted",
    )
    lines = results_text(index, "a=b", width=40, num_threads=2).splitlines()
    assert lines[-2:] == [
        "Run the best: loopwright '--config-dir=my conf' '--trust=my package' model=cnn 'name=b c' seed=0 "
        "device.num_threads=2",
        "Resume: loopwright sweep resume '--trust=my package' ./a=b",
    ]
    running = results_text(dataclasses.replace(index, state="running"), "DIR", width=200)
    assert "Resume" not in running and "1 of 2 jobs done, 1 interrupted. Best: name=b c\n" in running


def test_headings_are_as_long_as_needed() -> None:
    keys = ["optimizer.lr", "a.model.dropout", "b.model.dropout", "dropout"]
    assert list(headings(keys).values()) == ["lr", "a.model.dropout", "b.model.dropout", "dropout"]


def test_job_numbers_are_short() -> None:
    jobs = list(swept([{}], [[1.0, 1.0, 1.0, 1.0, "failed", 1.0, 1.0, "failed"]]).jobs)
    assert job_numbers_text(jobs) == "0-3 4✗ 5 6 7✗"


@pytest.mark.parametrize(
    "mean, deviation, text",
    [
        (0.07283, 0.00212, "0.0728 ± 0.0021"),
        (0.07283, 0.00091, "0.0728 ± 0.0009"),
        (-1234.6, 12.0, "−1235 ± 12"),
        (1.5e-7, 2.2e-9, "(1.500 ± 0.022)e-07"),
        (0.0, 5e-324, "(0 ± 5)e-324"),
        (1.0, 0.0, "1 ± 0"),
        (1.0, 1e-12, "1 ± 1e-12"),
        (-0.001, 0.5, "0.0 ± 0.5"),
        (0.123456, None, "0.1235"),
        (float("nan"), 1.0, "–"),
    ],
)
def test_a_mean_is_as_precise_as_its_deviation(mean: float, deviation: float | None, text: str) -> None:
    assert measured_text(mean, deviation) == text


@given(st.floats(-1e300, 1e300), st.floats(0, 1e300))
def test_formatted_numbers_can_be_read_back(mean: float, deviation: float) -> None:
    words = measured_text(mean, deviation).replace("−", "-")
    found = re.fullmatch(r"\(?(\S+) ± ([^)]+)\)?(e[+-]\d+)?", words)
    assert found is not None
    read = float(found[1] + (found[3] or ""))
    assert abs(read - mean) <= max(0.51 * deviation, 1.01e-3 * abs(mean))
    assert float(number_text(mean).replace("−", "-")) == pytest.approx(mean, rel=1e-3, abs=1e-320)


@given(sweeps(), st.integers(20, 150))
def test_the_table_fits_and_every_group_is_shown_or_counted(index: SweepIndex, width: int) -> None:
    found = group_table(index)
    lines = table_lines(found, width)
    longest = max(len(text) for row in found.rows for text in row.cells[: len(index.factors) or 1])
    names = max(len(column.heading) for column in found.columns) + 3
    assert all(len(line) <= max(width, longest, names) for line in lines)
    counted = sum(int(line.split()[1]) for line in lines if re.match(r"  and \d+$|  and \d+ ", line))
    num_shown = len(found.rows) - counted
    assert counted == 0 or num_shown in (MAX_ROWS, MAX_ROWS + 1)
    assert sum(line.startswith("  jobs:") for line in lines) in (0, num_shown)
    text = results_text(index, DIRECTORY, width=width)
    assert not re.search(r"\b(nan|inf)\b", text, re.I)
    assert sum(line.startswith("job ") for line in text.splitlines()) == sum(
        job.state == "failed" for job in index.jobs
    )


@given(sweeps(max_groups=6), st.integers(1, 200))
def test_values_of_factors_are_never_cut(index: SweepIndex, width: int) -> None:
    text = table(index, width)
    for row in group_table(index).rows:
        for cell in row.cells[: len(index.factors)]:
            assert cell in text
