"""The settings that a run records as different from the configuration of its experiment."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from command import Answer
from loopwright.experiment.compose.composer import composing
from loopwright.experiment.gate.trust import read_trust
from loopwright.experiment.jobs.changes import changes_after_resume
from loopwright.experiment.jobs.job import compose_jobs

Cli = Callable[..., Answer]


def composed_changes(*jobs: Sequence[str], allow_env: Sequence[str] = ()) -> list[dict[str, Any]]:
    trust = read_trust((), Path.cwd(), allow_env)
    with composing(None, trust.variables) as composer:
        return [dict(job.changes) for job in compose_jobs(composer, jobs, trust)]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], {}),
        (["optimizer.lr=0.01"], {"optimizer.lr": (0.003, 0.01)}),
        (["optimizer.lr=0.003"], {}),
        (["model=cnn"], {"model": ("mlp", "cnn")}),
        (["model=cnn", "optimizer.lr=0.01"], {"model": ("mlp", "cnn"), "optimizer.lr": (0.003, 0.01)}),
        (["experiment=digits"], {}),
        (["name=mine"], {"name": ("digits", "mine")}),
        (["loop.num_steps=20"], {"loop.num_steps": (None, 20)}),
        (["model.hidden=[8,8]"], {"model.hidden": ([256], [8, 8])}),
    ],
)
def test_changes_are_the_settings_that_differ_from_the_experiment(
    words: list[str], expected: dict[str, tuple[Any, Any]]
) -> None:
    assert composed_changes(words) == [expected]


@pytest.mark.slow
def test_each_job_of_a_sweep_has_its_own_changes() -> None:
    jobs = [[f"seed={seed}", f"optimizer.lr={rate}"] for rate in (0.003, 0.01) for seed in range(30)]
    found = composed_changes(*jobs)
    assert found[0] == {} and found[1] == {"seed": (0, 1)}
    assert found[31] == {"seed": (0, 1), "optimizer.lr": (0.003, 0.01)}


def test_the_value_of_an_environment_variable_is_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDER", "a-secret-folder")
    word = "data.path=${oc.env:FOLDER}"
    (found,) = composed_changes(["data=csv", "data.target=y", word], allow_env=["FOLDER"])
    assert found["data.path"][1] == "${oc.env:FOLDER}" and "a-secret-folder" not in str(found)


def test_a_run_records_its_changes_and_a_resume_adds_to_them(cli: Cli) -> None:
    run = Path("run")
    words = ["loop.max_steps=2", "loop.eval_frequency=null", f"hydra.run.dir={run}", "optimizer.lr=0.01"]
    assert cli(*words).code == 0
    first = json.loads((run / "summary.json").read_text())["changes"]
    assert first == {"loop.max_steps": [2000, 2], "loop.eval_frequency": [200, None], "optimizer.lr": [0.003, 0.01]}
    assert cli("resume", str(run), "loop.max_steps=3").code == 0
    second = json.loads((run / "summary.json").read_text())["changes"]
    assert second == first | {"loop.max_steps": [2000, 3]}


def test_a_resume_with_the_configured_value_removes_the_change() -> None:
    before = {"loop": {"max_steps": 2}, "ckpt_path": None}
    after = {"loop": {"max_steps": 2000}, "ckpt_path": "a/checkpoints/step_00000002"}
    assert changes_after_resume({"loop.max_steps": (2000, 2)}, before, after) == {}
