"""`WandbLogger`: what W&B's files contain after a kill and a resume, and what they do not contain."""

from __future__ import annotations

import importlib.util
import math
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from torch import Tensor
from torch.utils.data import DataLoader

import tiny
import wandb_records
from command import run_in, small_run
from killed import has_connection, kill_and_resume, lines_of, open_port, proxy_variables
from loopwright import Checkpointing, TrainingLoop
from loopwright.errors import SaveError, SettingError
from loopwright.loggers import JSONLinesLogger, WandbLogger
from loopwright.loggers.wandb_file import WandbFile

needs_extra = pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="needs the extra wandb")


def files_below(folder: Path) -> Iterator[bytes]:
    yield from (file.read_bytes() for file in folder.rglob("*") if file.is_file())


@pytest.mark.extras
@pytest.mark.slow
@needs_extra
@pytest.mark.parametrize("waits", [True, False], ids=["after sending", "before sending"])
def test_a_killed_and_resumed_run_has_each_value_once(tmp_path: Path, waits: bool) -> None:
    with open_port() as proxy:
        check_killed_and_resumed(tmp_path, proxy, waits)


def check_killed_and_resumed(tmp_path: Path, proxy: socket.socket, waits: bool) -> None:
    variables = {name: f"planted {name}" for name in ("USER", "LOGNAME", "HOSTNAME", "WANDB_USERNAME", "WANDB_EMAIL")}
    variables |= {"PLANTED": "planted value", "WANDB_API_KEY": "p1anted0" * 5, "HOME": str(tmp_path / "planted home")}
    variables |= proxy_variables(proxy)
    words = ["+callbacks.kill.api_key=planted key", "+callbacks.kill.place='${oc.env:PLANTED}'"]
    run_dir = kill_and_resume(tmp_path, "wandb", variables, *words, waits=waits)
    logged, sent = lines_of(run_dir), wandb_records.points(run_dir)
    assert len({(name, step) for name, step, _ in sent}) == len(sent)
    assert sorted(point for point in sent if not point[0].startswith("timing/")) == sorted(logged)
    assert ("timing/train/seconds", 6) in {(name, step) for name, step, _ in sent}
    assert {file.stem for file in wandb_records.files(run_dir)} == {f"run-{run_dir.name}"}
    assert {run.run_id for run in wandb_records.messages(run_dir, "run")} == {run_dir.name}
    assert len(wandb_records.files(run_dir)) == 2 or not waits
    assert [end.exit_code for end in wandb_records.messages(run_dir, "exit")] == [0]

    recorded = yaml.safe_load((run_dir / "config.yaml").read_text())
    recorded["callbacks"]["kill"]["api_key"] = "•••"
    assert wandb_records.config(run_dir) == recorded
    assert recorded["callbacks"]["kill"]["place"] == "${oc.env:PLANTED}"
    host = re.compile(rb"\b" + re.escape(socket.gethostname().encode()) + rb"\b")  # a short name is in other words
    for content in files_below(run_dir / "wandb"):
        assert b"planted" not in content and b"p1anted" not in content
        assert host.search(content) is None
    assert not has_connection(proxy)


def fit(run_dir: Path, logger: WandbLogger, num_steps: int = 4, **settings: Any) -> None:
    """Train a tiny model; ``ckpt_path`` resumes a run."""
    ckpt_path = settings.pop("ckpt_path", None)
    loop = TrainingLoop(max_steps=num_steps, eval_frequency=2)
    every: dict[str, Any] = {"log_every_n_steps": 1, "checkpoint": Checkpointing(every_n_steps=2)}
    loggers = [JSONLinesLogger(), logger]
    with tiny.trainer(loop, loggers=loggers, run_dir=run_dir, **every, **settings) as trainer:
        trainer.fit(tiny.batches(), validation(), ckpt_path=ckpt_path)


def validation() -> DataLoader[tuple[Tensor, ...]]:
    return DataLoader(tiny.rows(8), batch_size=4)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have W&B read and write its own files in a new folder."""
    for name in ("HOME", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))


@pytest.mark.extras
@needs_extra
@pytest.mark.usefixtures("home")
def test_the_summary_has_last_and_best_values_and_a_failure_its_exit_code(tmp_path: Path) -> None:
    fit(tmp_path / "run", WandbLogger(project="p"))
    rows = wandb_records.points(tmp_path / "run")
    losses = {step: value for name, step, value in rows if name == "val/loss"}
    best = min(losses, key=lambda step: losses[step])
    summary = wandb_records.summary(tmp_path / "run")
    assert (summary["val/loss"], summary["best/val/loss"], summary["best/global_step"]) == (
        losses[4], losses[best], best,
    )  # fmt: skip
    (run,) = wandb_records.messages(tmp_path / "run", "run")
    assert (run.project, run.run_group, run.host, run.HasField("git")) == ("p", "", "", False)
    assert run.run_id.startswith("run-"), "a folder that a user has named gets random digits"

    def fail(trainer: Any, batch: Any, batch_idx: int) -> None:
        raise RuntimeError("planned")

    with pytest.raises(RuntimeError, match="planned"):
        fit(tmp_path / "failed", WandbLogger(), callbacks=[tiny.Recorder(fail)])
    assert [end.exit_code for end in wandb_records.messages(tmp_path / "failed", "exit")] == [1]


@pytest.mark.extras
@pytest.mark.slow
@needs_extra
@pytest.mark.usefixtures("home")
def test_the_jobs_of_a_sweep_are_a_group_and_equal_settings_have_the_same_job_type(tmp_path: Path) -> None:
    wide = ",".join(["4"] * 30)
    words = ["-m", "seed=0,1", f"model.hidden=[4],[{wide}]", "loop.max_steps=2", "loggers=[json_lines,wandb]"]
    answer = run_in(tmp_path, *small_run(*words))
    assert answer.code == 0, answer.err
    (sweep_dir,) = tmp_path.glob("outputs/*/*_sweep")
    runs = {number: wandb_records.messages(sweep_dir / str(number), "run")[0] for number in range(4)}
    assert {run.run_group for run in runs.values()} == {sweep_dir.name}
    assert {number: run.run_id for number, run in runs.items()} == {n: f"{sweep_dir.name}-{n}" for n in range(4)}
    long = f"model.hidden=[{wide}]"[:64]
    assert sorted(run.job_type for run in runs.values()) == sorted(["model.hidden=[4]", long] * 2)
    for number in range(4):
        sent = wandb_records.points(sweep_dir / str(number))
        assert sorted(p for p in sent if not p[0].startswith("timing/")) == sorted(lines_of(sweep_dir / str(number)))


@pytest.mark.extras
@needs_extra
@pytest.mark.usefixtures("home")
def test_a_run_that_is_resumed_from_an_earlier_step_sends_only_new_values(tmp_path: Path) -> None:
    fit(tmp_path, WandbLogger(), num_steps=4)
    fit(tmp_path, WandbLogger(), num_steps=6, ckpt_path=tmp_path / "checkpoints" / "step_00000002")
    sent = wandb_records.points(tmp_path)
    assert sorted(point for point in sent if not point[0].startswith("timing/")) == sorted(lines_of(tmp_path))
    assert len({point[:2] for point in sent}) == len(sent)
    (tmp_path / "wandb.json").unlink()
    fit(tmp_path, WandbLogger(), num_steps=6, ckpt_path=tmp_path / "checkpoints" / "step_00000002")
    assert len({file.name for file in wandb_records.files(tmp_path)}) == 2, "without its ID a new run begins"


@pytest.mark.extras
@needs_extra
@pytest.mark.usefixtures("home")
def test_values_of_a_finished_step_and_values_that_are_not_finite_are_sent(tmp_path: Path) -> None:
    logger = WandbLogger()
    with tiny.trainer(TrainingLoop(num_steps=1), loggers=[logger], run_dir=tmp_path) as trainer:
        logger.log_metrics({"a": 1 / 3, "b": math.nan}, 5)
        logger.log_metrics({"a": math.inf}, 9)
        logger.log_metrics({"c": -math.inf}, 5)
        trainer.validate(validation())
    found = {(name, step): value for name, step, value in wandb_records.points(tmp_path)}
    assert math.isnan(found.pop(("b", 5)))
    expected = {("a", 5): 1 / 3, ("a", 9): math.inf, ("c", 5): -math.inf}
    assert {key: found[key] for key in expected} == expected


@pytest.mark.extras
@needs_extra
@pytest.mark.usefixtures("home")
@pytest.mark.filterwarnings("ignore")  # W&B warns of the long texts
def test_a_file_is_read_while_it_grows(tmp_path: Path) -> None:
    logger = WandbLogger()
    with tiny.trainer(TrainingLoop(num_steps=1), loggers=[logger], run_dir=tmp_path):
        for step in range(1, 6):
            logger.log_metrics({f"{'x' * 90}{index}": 1.0 for index in range(200 * step)}, step)
    (whole,) = wandb_records.files(tmp_path)
    data, growing = whole.read_bytes(), WandbFile(tmp_path / "growing.wandb")
    assert len(data) > 3 * wandb_records.BLOCK, "records reach over blocks"
    for end in (0, 5, 1000, 33_000, 70_000, 70_001, len(data)):
        growing.path.write_bytes(data[:end])
        growing.read_further()
    expected: dict[str, int] = {}
    for name, step, _ in wandb_records.points(tmp_path):
        expected[name] = max(step, expected.get(name, 0))
    assert growing.last_steps == expected


@pytest.mark.extras
@needs_extra
def test_a_link_in_place_of_the_folder_stops_the_run_if_asked(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "wandb").symlink_to(tmp_path / "outside")
    with pytest.raises(SaveError, match=r"W&B: cannot send: .*wandb: a link, and not written to"):
        fit(tmp_path / "run", WandbLogger(on_error="stop"))
    assert not [*(tmp_path / "outside").iterdir()]


def test_a_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ImportError, match=r"WandbLogger needs wandb; pip install 'loopwright\[wandb\]'"):
        tiny.trainer(loggers=[WandbLogger()], run_dir=tmp_path)


@pytest.mark.parametrize("setting", ["mode", "on_error"])
def test_a_wrong_setting_is_refused(setting: str) -> None:
    with pytest.raises(SettingError, match=f"{setting}='maybe': expected '"):
        WandbLogger(**{setting: "maybe"})
