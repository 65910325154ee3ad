"""A configuration with origins has the values that a run records, and says which values Loopwright sets."""

from __future__ import annotations

from pathlib import Path

import pytest

from loopwright.errors import SettingError
from loopwright.experiment.compose.composer import composing
from loopwright.experiment.explain.explained import NO_VALUE, explained, explained_job, leaves, value_at
from loopwright.experiment.gate.trust import NO_TRUST
from loopwright.experiment.jobs.job import compose_jobs
from loopwright.shipped import conf_dir

EXPERIMENTS = sorted(file.stem for file in (conf_dir() / "experiment").glob("*.yaml"))


@pytest.mark.parametrize(
    "overrides",
    [
        *([f"experiment={name}"] for name in EXPERIMENTS),
        ["loop.num_epochs=2", "model=cnn"],
        ["debug=overfit", "data=synthetic", "scheduler=plateau"],
        ["loop=validation", "experiment=gpt_stdlib"],
    ],
    ids=" ".join,
)
def test_the_values_are_those_that_the_run_records(overrides: list[str]) -> None:
    with composing(None) as composer:
        (job,) = compose_jobs(composer, [overrides], NO_TRUST)
        own, of_job = explained(composer, overrides), explained_job(composer, job)
    assert {key: value for key, value in own.values.items() if key != "sweep"} == job.recorded == of_job.values
    assert own.settled == of_job.settled
    for path, _ in leaves(of_job.values):
        assert of_job.origins.writers(path), path


def test_values_that_loopwright_sets_say_why() -> None:
    with composing(None) as composer:
        config = explained(composer, ["loop.num_steps=20", "model=cnn", "checkpoint.monitor=val/perplexity"])
    assert config.settled == {
        ("loop", "max_steps"): "loop.num_steps=20 was typed",
        ("objective_mode",): "smaller values of val/loss are better",
        ("checkpoint", "mode"): "smaller values of val/perplexity are better",
        ("name",): "-cnn is appended because of model=cnn",
    }


def test_a_length_in_a_users_file_says_which_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "short.yaml").write_text("# @package _global_\nloop:\n  num_epochs: 3\n")
    with composing("mine") as composer:
        config = explained(composer, ["experiment=short"])
    assert config.settled[("loop", "max_steps")] == "experiment/short.yaml sets loop.num_epochs=3"
    assert config.settled[("name",)] == "the name of the experiment"


def test_wrong_values_are_composed_all_the_same() -> None:
    with composing(None) as composer:
        config = explained(composer, ["loop.eval_frequency=-3", "data=csv", "objective=val/f9", "+model.nothing=1"])
    assert value_at(config.values, ("loop", "eval_frequency")) == -3
    assert value_at(config.values, ("data", "path")) == "???"
    assert value_at(config.values, ("objective_mode",)) is None


def test_an_interpolation_that_cannot_be_resolved_is_an_error() -> None:
    with composing(None) as composer, pytest.raises(SettingError, match="seed: Interpolation key 'nothing' not found"):
        explained(composer, ["seed=${nothing}"])


def test_a_path_leads_into_lists() -> None:
    config = {"a": [{"b": 1}], 2: "x"}
    assert value_at(config, ("a", "0", "b")) == 1 and value_at(config, ("2",)) == "x"
    assert {value_at(config, path) for path in (("a", "1"), ("a", "b"), ("c",), ("2", "x"))} == {NO_VALUE}
