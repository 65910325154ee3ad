"""`MLFlowLogger`: what the SQLite database contains after a kill and a resume, and after a sweep."""

from __future__ import annotations

import importlib.util
import json
import logging
import math
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

import tiny
from command import environment, small_run
from killed import has_connection, kill_and_resume, lines_of, open_port, proxy_variables
from loopwright import Checkpointing, TrainingLoop
from loopwright.loggers import MLFlowLogger
from loopwright.loggers.run_facts import leaves_as_text

needs_extra = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("mlflow", "sqlalchemy", "alembic")),
    reason="needs the extra mlflow",
)
# SQLAlchemy warns of how MLflow uses it.
quiet = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory, without a store that the environment names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def client(directory: Path) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{directory / 'outputs' / 'mlflow.db'}")


def all_runs(store: Any) -> list[Any]:
    return list(store.search_runs([each.experiment_id for each in store.search_experiments()]))


def points(store: Any, run: Any) -> list[tuple[str, int, float]]:
    found = (metric for name in run.data.metrics for metric in store.get_metric_history(run.info.run_id, name))
    return [(metric.key, metric.step, metric.value) for metric in found]


def sent_once(store: Any, run: Any) -> list[tuple[str, int, float]]:
    """Check that each name and step is there once. Return the values without durations and rates."""
    found = points(store, run)
    assert len({point[:2] for point in found}) == len(found)
    assert any(name.startswith("timing/") for name, _, _ in found)
    return sorted(point for point in found if not point[0].startswith("timing/"))


def fit(run_dir: Path, logger: MLFlowLogger, num_steps: int = 4, **settings: Any) -> None:
    loop, ckpt_path = TrainingLoop(max_steps=num_steps), settings.pop("ckpt_path", None)
    every: dict[str, Any] = {"log_every_n_steps": 1, "checkpoint": Checkpointing(every_n_steps=2)}
    with tiny.trainer(loop, loggers=[logger], run_dir=run_dir, **every, **settings) as trainer:
        trainer.fit(tiny.batches(), ckpt_path=ckpt_path)


@pytest.mark.extras
@pytest.mark.slow
@needs_extra
@quiet
@pytest.mark.parametrize("waits", [True, False], ids=["after sending", "before sending"])
def test_a_killed_and_resumed_run_has_each_value_once(here: Path, waits: bool) -> None:
    variables = {"PLANTED": "planted value", "USER": "planted", "LOGNAME": "planted"}
    words = ["+callbacks.kill.api_key=planted key", "+callbacks.kill.place='${oc.env:PLANTED}'"]
    with open_port() as server:
        run_dir = kill_and_resume(here, "mlflow", variables | proxy_variables(server), *words, waits=waits)
        assert not has_connection(server)
    store = client(here)
    (run,) = all_runs(store)
    assert sent_once(store, run) == sorted(lines_of(run_dir))
    assert (run.info.run_name, run.info.status, run.info.user_id) == (run_dir.name, "FINISHED", "")
    assert run.data.tags == {
        "mlflow.runName": run_dir.name, "mlflow.user": "", "mlflow.source.name": "", "mlflow.source.type": "",
        "loopwright.run": run_dir.name,
    }  # fmt: skip
    recorded = yaml.safe_load((run_dir / "config.yaml").read_text())
    recorded["callbacks"]["kill"]["api_key"] = "•••"
    assert run.data.params == leaves_as_text(recorded)
    assert "planted" not in json.dumps(run.data.params)
    assert store.get_experiment(run.info.experiment_id).name == recorded["name"]


def sweep(here: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "loopwright", *words]
    return subprocess.run(command, cwd=here, env=environment(here), text=True, capture_output=True, timeout=250)


@pytest.mark.extras
@pytest.mark.slow
@needs_extra
@quiet
def test_a_sweep_is_a_run_whose_children_are_its_jobs(here: Path) -> None:
    words = [
        "-m", "seed=0,1", "loop.max_steps=2,4,6", "loop.eval_frequency=2", "sweep.num_parallel=2",
        "loggers=[json_lines,mlflow]", "hydra.sweep.dir=swept", "sweep.on_failure=continue", "--trust=failing",
        "+callbacks.fail._target_=failing.Fail",
    ]  # fmt: skip
    (here / "failing.py").write_text(
        "from loopwright import Callback\n"
        "class Fail(Callback):\n"
        "    def on_train_batch_end(self, trainer, model, outputs, batch, batch_idx):\n"
        "        if trainer.global_step == 5 and trainer.seed == 1:\n"
        "            raise RuntimeError('planned')\n"
    )
    answer = sweep(here, *small_run(*words))
    assert answer.returncode == 1, answer.stderr
    store = client(here)
    runs = {run.info.run_name: run for run in all_runs(store)}
    parent = runs.pop("swept")
    assert (parent.info.status, parent.data.tags["loopwright.sweep"]) == ("FAILED", "swept")
    assert "mlflow.parentRunId" not in parent.data.tags
    jobs = json.loads((here / "swept" / "sweep.json").read_text())["jobs"]
    assert len(jobs) == 6
    expected = {"done": "FINISHED", "failed": "FAILED"}
    assert {name: run.info.status for name, run in runs.items()} == {
        f"swept-{job['number']}": expected[job["state"]] for job in jobs
    }
    assert sorted(run.info.status for run in runs.values()).count("FAILED") == 1
    for name, run in runs.items():
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert sent_once(store, run) == sorted(lines_of(here / "swept" / name.removeprefix("swept-")))
        assert run.data.params["seed"] in ("0", "1")


@pytest.mark.extras
@needs_extra
@quiet
def test_a_run_continues_its_run_and_sends_only_new_values(here: Path) -> None:
    fit(here / "run", MLFlowLogger(experiment="e"), 4)
    checkpoint = here / "run" / "checkpoints" / "step_00000002"
    fit(here / "run", MLFlowLogger(experiment="e"), 6, ckpt_path=checkpoint)
    store = client(here)
    (run,) = all_runs(store)
    losses = [step for name, step, _ in sent_once(store, run) if name == "train/loss"]
    assert losses == [1, 2, 3, 4, 5, 6]
    assert (run.info.status, store.get_experiment(run.info.experiment_id).name) == ("FINISHED", "e")


@pytest.mark.extras
@needs_extra
@quiet
def test_names_values_and_ends_that_mlflow_stores_differently(here: Path) -> None:
    logger = MLFlowLogger()
    logged = {"größe/loss": 1 / 3, "/x//y": math.nan, "up": math.inf, "a b:c": -0.0}

    def act(trainer: Any, batch: Any, batch_idx: int) -> None:
        logger.log_metrics(logged, 1)
        trainer.stop("SIGINT", is_interruption=True)

    fit(here / "run", logger, callbacks=[tiny.Recorder(act)])
    store = client(here)
    (run,) = all_runs(store)
    found: Mapping[str, float] = {name: value for name, _, value in points(store, run)}
    assert (found["gr__e/loss"], found["a b:c"], found["up"]) == (1 / 3, 0.0, sys.float_info.max)
    assert math.isnan(found["x/y"])
    assert run.info.status == "KILLED"


@pytest.mark.extras
@needs_extra
def test_a_store_that_cannot_be_reached_ends_no_run(
    here: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", str(here / "files"))
    with caplog.at_level(logging.WARNING, "loopwright"):
        fit(here / "run", MLFlowLogger())
    messages = [record.getMessage() for record in caplog.records if record.name == "loopwright"]
    assert "MLflow: " in messages[-1] and "could not be sent" in messages[-1]


@pytest.mark.extras
@needs_extra
@quiet
def test_a_recorded_id_of_another_run_is_not_used(here: Path) -> None:
    fit(here / "mine", MLFlowLogger(), 2)
    fit(here / "foreign", MLFlowLogger(), 2)
    (here / "foreign" / "mlflow.json").write_text((here / "mine" / "mlflow.json").read_text())
    fit(here / "foreign", MLFlowLogger(), 4, ckpt_path=here / "foreign" / "checkpoints" / "step_00000002")
    store = client(here)
    lengths = [(run.info.run_name, len(points(store, run))) for run in all_runs(store)]
    names = [name for name, _ in lengths]
    assert sorted(names) == ["foreign", "foreign", "mine"]
    assert dict(lengths)["mine"] == min(length for _, length in lengths)


@pytest.mark.parametrize("package", ["mlflow", "sqlalchemy", "alembic"])
def test_a_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r"MLFlowLogger needs \w+; pip install 'loopwright\[mlflow\]'"):
        tiny.trainer(loggers=[MLFlowLogger()], run_dir=tmp_path)
