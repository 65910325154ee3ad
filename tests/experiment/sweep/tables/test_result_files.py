from __future__ import annotations

import csv
import dataclasses
import io
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from loopwright.experiment.compose.composer import composing
from loopwright.experiment.compose.overrides import parse_overrides
from loopwright.experiment.sweep.factors import plain_value
from loopwright.experiment.sweep.index import BestGroup, SweepIndex
from loopwright.experiment.sweep.tables.best_file import BestFileSettings, best_text
from loopwright.experiment.sweep.tables.result_files import csv_text, markdown_text, write_tables
from swept import DIRECTORY, sweeps, swept

KEY = "loop.grad_accum_steps"


def read_value(word: str) -> Any:
    return plain_value(parse_overrides([word])[0])


SETTINGS = BestFileSettings(
    read_value=read_value, groups=("model", "callbacks", "debug", "experiment"), experiment="digits"
)


def small(**more: Any) -> SweepIndex:
    return swept(
        [{KEY: 1}, {KEY: 4}],
        [[0.5, math.nan], [0.25, "failed"]],
        metrics={0: {"val/accuracy": 0.1 + 0.2}, 2: {"lr": math.inf}},
        best={0: 0.45},
        **more,
    )


def best_of(*overrides: str) -> SweepIndex:
    """Return a sweep whose best group has these overrides."""
    return dataclasses.replace(small(), best=BestGroup(group=0, overrides=overrides, mean=0.5))


def test_the_csv_file_has_a_row_for_each_job() -> None:
    assert csv_text(small(error="boom, twice")) == (
        """\
job,group,seed,loop.grad_accum_steps,state,val/loss,val/accuracy,lr,best,best_step,global_step,seconds,weights_sha256,error,directory
0,0,0,1,done,0.5,0.30000000000000004,,0.45,1600,2000,0.0,,,0
1,0,1,1,done,,,,,,2000,0.0,,,1
2,1,0,4,done,0.25,,,,,2000,0.0,,,2
3,1,1,4,failed,,,,,,2000,0.0,,"boom, twice",3
"""
    )


def test_the_markdown_file_has_all_groups_and_failures() -> None:
    index = swept([{"a.b": "x|y"}, {"a.b": "*"}], [[0.5], ["failed"]], error="a <b> `c`")
    assert markdown_text(index, DIRECTORY, num_threads=1) == (
        f"""\
# {DIRECTORY}

1 of 2 jobs done, 1 failed, in 0:02. Best: a.b=x\\|y

|  | b | val/loss | against x\\|y | jobs |
| --- | --- | --- | --- | --- |
| ▸ | x\\|y | 0.5 | – | 0 |
|  | \\* | failed |  | 1✗ |

- job 1 failed: a \\<b> \\`c\\` (1/run.log)

- Run the best: `loopwright 'a.b=x|y' seed=0 device.num_threads=1`
- Retry what failed: `loopwright sweep retry {DIRECTORY}`
"""
    )
    many = swept([{"a": number} for number in range(30)], [[1.0]] * 30)
    assert markdown_text(many, "DIR").count("\n|") == 32


def test_the_best_file_is_an_experiment() -> None:
    index = best_of("model=cnn", "callbacks=[default,ema]", "optimizer.lr=1e-5", "loop={max_steps: 30}", f"{KEY}=4")
    assert best_text(index, 2, SETTINGS) == (
        """\
# @package _global_
# loopwright model=cnn 'callbacks=[default,ema]' optimizer.lr=1e-5 'loop={max_steps: 30}' loop.grad_accum_steps=4 \
seed=0 device.num_threads=2
# As an experiment: copy this file to CONF/experiment/best.yaml, then loopwright --config-dir=CONF experiment=best
defaults:
  - digits
  - override /model: cnn
  - override /callbacks: [default, ema]
  - _self_

optimizer:
  lr: 1.0e-05
loop:
  max_steps: 30
  grad_accum_steps: 4
device:
  num_threads: 2
"""
    )


def test_the_best_file_composes_like_the_overrides(tmp_path: Path) -> None:
    words = ["model=cnn", "callbacks=[default,ema]", "optimizer.lr=1e-5", "device.num_threads=1", "name='1e5'"]
    text = best_text(best_of(*words), None, SETTINGS)
    assert text is not None
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "best.yaml").write_text(text)
    with composing(str(tmp_path)) as composer:
        by_file, by_words = (composer.compose(each).config for each in (["experiment=best"], words))
    assert by_file == by_words


def test_an_experiment_of_the_jobs_replaces_the_default_one() -> None:
    text = best_text(best_of("experiment=gpt_stdlib"), None, SETTINGS)
    assert text is not None and "defaults:\n  - gpt_stdlib\n  - _self_\n" in text
    text = best_text(best_of("experiment=null", "+debug=fast"), None, SETTINGS)
    assert text is not None and "defaults:\n  - /debug: fast\n  - _self_\n" in text


def test_overrides_that_a_file_cannot_express_are_listed() -> None:
    text = best_text(best_of("~callbacks.ema", "model.hidden.0=3", f"+{KEY}=4"), None, SETTINGS)
    assert text is not None
    assert "\n# Not in this file: '~callbacks.ema' model.hidden.0=3\n" in text
    assert "experiment=best '~callbacks.ema' model.hidden.0=3\n" in text
    assert yaml.safe_load(text) == {"defaults": ["digits", "_self_"], "loop": {"grad_accum_steps": 4}}


def test_without_a_best_group_there_is_no_best_file(tmp_path: Path) -> None:
    (tmp_path / "best.yaml").write_text("kept")
    none = swept([{KEY: 1}], [["failed"]])
    assert best_text(none, 1, SETTINGS) is None
    write_tables(tmp_path, none, best_file=SETTINGS)
    assert (tmp_path / "best.yaml").read_text() == "kept"


def test_all_files_are_written(tmp_path: Path) -> None:
    index = best_of(f"{KEY}=1")
    write_tables(tmp_path, index, num_threads=1, best_file=SETTINGS)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["best.yaml", "sweep.csv", "sweep.md"]
    assert (tmp_path / "best.yaml").read_text() == best_text(index, 1, SETTINGS)
    assert (tmp_path / "sweep.md").read_text(encoding="utf-8") == markdown_text(index, str(tmp_path), num_threads=1)


values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=6,
)


@given(values)
def test_values_in_the_best_file_can_be_read_back(value: Any) -> None:
    settings = BestFileSettings(read_value=lambda word: value)
    text = best_text(best_of("a.b=x", "c=x"), None, settings)
    assert text is not None
    assert yaml.safe_load(text) == {"defaults": ["_self_"], "a": {"b": value}, "c": value}


@given(sweeps(max_groups=5))
def test_the_csv_file_can_be_read_back(index: SweepIndex) -> None:
    heading, *rows = csv.reader(io.StringIO(csv_text(index)))
    assert len(rows) == len(index.jobs) and {len(row) for row in rows} == {len(heading)}
    objectives = [float(row[heading.index("val/loss")] or "nan") for row in rows]
    expected = [math.nan if job.objective is None else job.objective for job in index.jobs]
    assert objectives == pytest.approx(expected, nan_ok=True, rel=0, abs=0)
    markdown = markdown_text(index, "DIR")
    assert markdown.count("\n|") == len(index.groups) + 2
