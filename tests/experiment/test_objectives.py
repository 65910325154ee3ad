"""Objectives of the command: which are refused before the first step, and how a resume corrects one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import named_sets
from command import Answer

Cli = Callable[..., Answer]


@pytest.fixture
def sets(cli: Cli, tmp_path: Path) -> Cli:
    """Return a function that runs the command with data whose validation sets it names."""
    named_sets.write_configs(tmp_path / "conf")
    model = ["model.in_features=2", "model.num_classes=3", "model.hidden=[4]"]
    words = ["--config-dir=conf", "--trust=named_sets", "data=named", *model, "loop.max_steps=4"]
    return lambda *more: cli(*words, "loop.eval_frequency=2", "checkpoint.every_n_steps=null", *more)


def summary(directory: Path) -> dict[str, Any]:
    found = json.loads((directory / "summary.json").read_text())
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["objective=loss"], "objective='loss': expected a metric whose name begins with train/ or val/. Did you mean"),
        (["objective=accuracy", "objective_mode=max"], "begins with train/ or val/. Did you mean val/accuracy?"),
        (["checkpoint.monitor=foo", "checkpoint.mode=min"], "checkpoint.monitor='foo': expected a metric whose name"),
        (["objective=val/web/loss"], "objective='val/web/loss': no such validation set. Available: val. Did you mean"),
        (
            ["scheduler=plateau", "scheduler.monitor=train/loss"],
            "scheduler.monitor='train/loss': expected a metric whose name begins with val/. Did you mean val/loss?",
        ),
    ],
)
def test_a_metric_that_cannot_come_is_refused_before_the_run_begins(
    small: Cli, tmp_path: Path, words: list[str], line: str
) -> None:
    """The run trained to its end, with exit code 0 and no objective."""
    answer = small(*words)
    assert answer.code == 2 and line in answer.err and answer.err.count("\n") == 1
    assert [*tmp_path.iterdir()] == []


def test_a_sweep_is_refused_too(small: Cli, tmp_path: Path) -> None:
    """Both jobs completed, with the objective nan."""
    answer = small("-m", "optimizer.lr=0.1,0.2", "objective=loss")
    assert answer.code == 2 and answer.err.endswith("Did you mean val/loss?\n")  # in all jobs
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["objective=val/wob/loss"], "objective='val/wob/loss'"),
        (["checkpoint.monitor=val/wob/loss"], "checkpoint.monitor='val/wob/loss'"),
        (
            ["callbacks=[default,early_stopping]", "callbacks.early_stopping.monitor=val/wob/loss"],
            "callbacks.early_stopping.monitor='val/wob/loss'",
        ),
        (["scheduler=plateau", "scheduler.monitor=val/wob/loss"], "scheduler.monitor='val/wob/loss'"),
    ],
)
def test_a_validation_set_that_the_data_lack_is_refused_before_the_run_begins(
    sets: Cli, tmp_path: Path, words: list[str], named: str
) -> None:
    """The run trained to its first validation."""
    answer = sets("data.names=[web,books]", *words)
    available = "val/web, val/books, and val/loss is the mean over the sets"
    line = f"{named}: no such validation set. Available: {available}. Did you mean val/web/loss?\n"
    assert (answer.code, answer.err) == (2, line)
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("names", ["[web]", "[a/b]", "[web,books/old]"])
def test_the_shipped_objective_is_the_mean_over_sets_with_any_names(sets: Cli, tmp_path: Path, names: str) -> None:
    """One named set, or a slash in a name, ended the shipped command at its first validation."""
    answer = sets(f"data.names={names}", "hydra.run.dir=run", "callbacks=[default,early_stopping]")
    assert (answer.code, answer.err) == (0, "")
    assert summary(tmp_path / "run")["objective"] == summary(tmp_path / "run")["metrics"]["val/loss"]
    assert "val/<metric> " in (tmp_path / "run" / "plan.txt").read_text()


@pytest.mark.slow
def test_an_objective_that_only_a_callback_of_the_user_may_log_is_a_warning(sets: Cli, tmp_path: Path) -> None:
    answer = sets("data.names=[val]", "callbacks=gap", "objective=gap", "objective_mode=min", "hydra.run.dir=run")
    assert answer.code == 0
    assert "objective='gap': expected a metric whose name begins with train/ or val/. Did you mean" in answer.err
    assert answer.err.count("The metric is missing unless Gap logs it.") == 1 and "no such metric" not in answer.err
    found = summary(tmp_path / "run")
    assert (found["objective"], found["best"]["name"]) == (0.25, "gap")


def test_an_objective_of_a_preset_without_validations_is_accepted(small: Cli, tmp_path: Path) -> None:
    answer = small("debug=overfit", "loop.max_steps=2", "hydra.run.dir=run")
    assert answer.code == 0, answer.err
    assert summary(tmp_path / "run")["objective_name"] == "train/loss"


def test_a_misspelt_objective_ends_the_run_before_its_first_step(small: Cli, tmp_path: Path) -> None:
    answer = small("objective=val/acc", "objective_mode=max", "hydra.run.dir=run")
    assert answer.code == 2 and summary(tmp_path / "run")["global_step"] == 0
    assert "objective='val/acc': no such metric. Available: val/loss, val/accuracy." in answer.err


def test_a_resume_changes_the_objective(small: Cli, cli: Cli, tmp_path: Path) -> None:
    assert small("hydra.run.dir=run").code == 0
    answer = cli("resume", "run", "loop.max_steps=6", "objective=val/accuracy", "objective_mode=max")
    assert answer.code == 0, answer.err
    assert "The monitored metric was val/loss (min), and is val/accuracy (max) now: the best value" in answer.err
    found = summary(tmp_path / "run")
    assert (found["state"], found["objective_name"], found["objective_mode"]) == ("completed", "val/accuracy", "max")
    assert found["objective"] == found["metrics"]["val/accuracy"] and found["best"]["name"] == "val/accuracy"
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (config["checkpoint"]["monitor"], config["checkpoint"]["mode"]) == ("val/accuracy", "max")


def test_a_resume_changes_what_the_checkpoints_monitor(small: Cli, cli: Cli, tmp_path: Path) -> None:
    assert small("hydra.run.dir=run").code == 0
    longer = ("resume", "run", "loop.max_steps=6")
    answer = cli(*longer, "checkpoint.monitor=val/accuracy")
    assert answer.code == 2 and "checkpoint.mode: expected max or min, as val/accuracy may be" in answer.err
    answer = cli(*longer, "checkpoint.monitor=val/accuracy", "checkpoint.mode=max")
    assert answer.code == 0 and "was val/loss (min), and is val/accuracy (max) now" in answer.err
    found = summary(tmp_path / "run")
    assert (found["best"]["name"], found["objective_name"]) == ("val/accuracy", "val/loss")
    answer = cli("resume", "run", "loop.max_steps=8", "objective_mode=max", "callbacks.progress.every=3")
    assert answer.code == 2
