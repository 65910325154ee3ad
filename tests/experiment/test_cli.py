"""The output and files of a run, a validation and a sweep; `test_errors.py` tests the error messages."""

from __future__ import annotations

import gc
import json
import math
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from command import Answer, run_dirs
from loopwright.experiment.runs import ending
from loopwright.models import MLP
from loopwright.shipped import conf_dir
from loopwright.trainer import Trainer

Cli = Callable[..., Answer]


@pytest.mark.hydra
def test_a_run_writes_a_complete_run_directory(small: Cli, tmp_path: Path) -> None:
    answer = small()
    assert (answer.code, answer.err) == (0, "")
    (run_dir,) = run_dirs(tmp_path)
    assert run_dir.parent == tmp_path / "outputs" / "digits-synthetic"
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["state"] == "completed"
    assert summary["error"] is None
    assert summary["global_step"] == 4
    assert summary["objective"] == summary["metrics"]["val/loss"]
    assert summary["best"]["name"] == "val/loss"
    assert len(summary["weights_sha256"]) == 64
    config = yaml.safe_load((run_dir / "config.yaml").read_text())
    assert config["device"]["num_threads"] == torch.get_num_threads()
    assert config["checkpoint"]["monitor"] == "val/loss"
    assert (run_dir / "command.txt").read_text().startswith("loopwright data=synthetic data.num_train=24 ")
    assert json.loads((run_dir / "environment.json").read_text())["torch"] == torch.__version__
    assert "train 4 steps" in (run_dir / "plan.txt").read_text()
    assert json.loads((run_dir / "plan.json").read_text())["total_steps"] == 4
    assert "trained 4 steps" in (run_dir / "run.log").read_text()
    assert (run_dir / "metrics.jsonl").exists()
    assert sorted(path.name for path in (run_dir / "checkpoints").iterdir()) == ["step_00000002", "step_00000004"]
    assert f"Validate it: loopwright validate {run_dir.relative_to(tmp_path)}" in answer.out
    assert "Final: val/loss " in answer.out
    assert not (run_dir / "cli.log").exists()


@pytest.mark.hydra
def test_the_plan_is_printed_and_no_files_are_written(small: Cli, tmp_path: Path) -> None:
    answer = small("plan")
    assert answer.code == 0
    assert list(tmp_path.iterdir()) == []
    small()
    assert (run_dirs(tmp_path)[0] / "plan.txt").read_text() == answer.out


@pytest.mark.slow
def test_the_plan_of_a_sweep_is_a_table_of_samples_and_effective_batches(small: Cli, tmp_path: Path) -> None:
    answer = small("plan", "-m", "loop.grad_accum_steps=1,2,4")
    assert answer.code == 0
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in answer.out.splitlines() if "│" in line]
    assert rows == [
        ["0", "loop.grad_accum_steps=1", "4", "4", "4", "16"],
        ["1", "loop.grad_accum_steps=2", "4", "8", "8", "32"],
        ["2", "loop.grad_accum_steps=4", "4", "12", "16", "48"],
    ]
    assert list(tmp_path.iterdir()) == []


def test_the_plan_of_a_validation(cli: Cli) -> None:
    assert cli("plan", "experiment=gpt_stdlib", "loop=validation").out.startswith("Plan: validate, train nothing")
    assert cli("plan", "experiment=gpt_stdlib", "loop=validation", "loop.max_steps=5").code == 2
    answer = cli("plan", "loop=validation", "loop.eval_steps=5")
    assert answer.out == "Plan: validate, train nothing\n  val: 5 of 12 batches\n"


EXPERIMENTS = [
    pytest.param(file, marks=[pytest.mark.extras] if file.stem.endswith("_eval") else [], id=file.stem)
    for file in sorted((conf_dir() / "experiment").glob("*.yaml"))
]


@pytest.mark.parametrize("file", EXPERIMENTS)
def test_every_experiment_opens_with_its_command_and_can_be_planned(cli: Cli, file: Path) -> None:
    package, command = file.read_text().splitlines()[:2]
    assert package == "# @package _global_"
    assert command == f"# loopwright experiment={file.stem}"
    if file.stem.endswith("_eval"):
        pytest.importorskip("lm_eval", reason="needs the extra: pip install 'loopwright[eval]'")
    assert cli("plan", f"experiment={file.stem}").code == 0


@pytest.mark.hydra
def test_the_configuration_is_printed_resolved(small: Cli) -> None:
    config = yaml.safe_load(small("config").out)
    assert config["checkpoint"]["monitor"] == "val/loss"
    assert config["data"]["num_train"] == 24


@pytest.mark.slow
def test_a_seed_that_is_drawn_is_recorded(small: Cli, tmp_path: Path) -> None:
    assert small("seed=null").code == 0
    assert isinstance(yaml.safe_load((run_dirs(tmp_path)[0] / "config.yaml").read_text())["seed"], int)


@pytest.mark.slow
@pytest.mark.hydra
def test_validating_by_path_by_pattern_and_by_run_directory(recorded: Path, cli: Cli, tmp_path: Path) -> None:
    expected = _summary(recorded)["metrics"]["val/loss"]
    data = ["data=synthetic", "data.num_train=24", "data.num_val=8", "data.batch_size=4", "model.hidden=[4]"]

    answer = cli("loop=validation", "ckpt_path=run", "hydra.run.dir=one", "loggers=none", *data)
    assert (answer.code, answer.err) == (0, "")
    summary = _summary(tmp_path / "one")
    assert (summary["metrics"]["val/loss"], summary["global_step"]) == (expected, 4)
    assert summary["objective"] == expected

    answer = cli("loop=validation", "ckpt_paths='run/checkpoints/*'", "hydra.run.dir=all", "loggers=none", *data)
    assert answer.code == 0
    rows = _summary(tmp_path / "all")["rows"]
    assert [Path(row["checkpoint"]).name for row in rows] == ["step_00000002", "step_00000004"]
    assert rows[1]["metrics"]["val/loss"] == expected
    assert answer.out.index("step_00000002") < answer.out.index("step_00000004")

    before = sorted(tmp_path.rglob("*"))
    answer = cli("validate", "run")
    assert (answer.code, answer.err) == (0, "")
    assert f"val/loss {expected:.4g}\n" in answer.out
    answer = cli("validate", "run", "ckpt_path=run/checkpoints/step_00000002")
    assert answer.out.startswith("Validated: run/checkpoints/step_00000002 (as given)\n")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_checkpoint_of_another_model_is_refused_naming_validate(small: Cli, recorded: Path) -> None:
    answer = small("ckpt_path=run/checkpoints/step_00000004", "model.hidden=[5]")
    assert answer.code == 2
    assert "model.hidden: [4] recorded, [5] now" in answer.err
    assert "loopwright validate run" in answer.err


@pytest.mark.slow
def test_resuming_and_beginning_from_weights(small: Cli, recorded: Path, tmp_path: Path) -> None:
    answer = small("hydra.run.dir=rest", "loop.max_steps=8", "ckpt_path=run")
    assert answer.code == 0, answer.err
    assert _summary(tmp_path / "rest")["global_step"] == 8
    answer = small("hydra.run.dir=new", "init_from=run")
    assert answer.code == 0, answer.err
    assert _summary(tmp_path / "new")["global_step"] == 4


def test_a_damaged_checkpoint_gives_exit_code_3(recorded: Path, cli: Cli) -> None:
    for file in recorded.glob("checkpoints/*/model.safetensors"):
        file.write_bytes(file.read_bytes()[:-1] + b"x")
    answer = cli("validate", "run")
    assert answer.code == 3
    assert answer.err.count("\n") == 1
    assert "model.safetensors" in answer.err


@pytest.mark.hydra
def test_a_sweep_runs_every_job_and_shows_a_table(small: Cli, tmp_path: Path) -> None:
    answer = small("-m", "loop.grad_accum_steps=1,2", "hydra.sweep.dir=sweep")
    assert (answer.code, answer.err) == (0, "")
    for number in ("0", "1"):
        assert _summary(tmp_path / "sweep" / number)["state"] == "completed"
        assert re.search(rf"job {number}  grad_accum_steps=\d seed=0   done ", answer.out)
    assert re.search(r"2 of 2 jobs done, in 0:\d\d. Best: loop.grad_accum_steps=", answer.out)
    assert answer.out.count("Plan:") == 0
    config = yaml.safe_load((tmp_path / "sweep" / "1" / "config.yaml").read_text())
    assert config["loop"]["grad_accum_steps"] == 2


@pytest.mark.slow
def test_no_object_of_a_job_stays_in_memory(small: Cli) -> None:
    before = _alive(Trainer, MLP)  # other tests may still refer to some
    small("-m", "seed=1,2")
    assert _alive(Trainer, MLP) == before


_MODELS = """
import warnings
import torch
from torch import nn

class Fragile(nn.Module):
    def __init__(self, fails: bool = True):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.fails = fails

    def forward(self, batch):
        if self.fails:
            raise ArithmeticError("this model\\nfails")
        return {"loss": (self.weight - 1) ** 2}

class Warning(Fragile):
    def __init__(self):
        super().__init__(False)
        warnings.warn("careful")

class Interrupted(Fragile):
    def forward(self, batch):
        raise KeyboardInterrupt
"""


@pytest.fixture
def own_models(tmp_path: Path) -> None:
    """Write models of a user into the current directory, and configuration files that name them."""
    (tmp_path / "fragile_models.py").write_text(_MODELS)
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "fragile.yaml").write_text("_target_: fragile_models.Fragile\nfails: true\n")
    (tmp_path / "conf" / "model" / "warning.yaml").write_text("_target_: fragile_models.Warning\n")
    (tmp_path / "conf" / "model" / "stopped.yaml").write_text("_target_: fragile_models.Interrupted\n")


def test_a_failed_run_is_one_line_and_its_traceback_is_in_the_log(cli: Cli, own_models: None, tmp_path: Path) -> None:
    answer = cli(*_WITH_OWN_MODEL, "model=fragile", "hydra.run.dir=out")
    assert answer.code == 1
    assert answer.err.startswith("ArithmeticError: this model fails")
    assert answer.err.endswith("(traceback in out/run.log)\n")
    assert answer.err.count("\n") == 1
    summary = _summary(tmp_path / "out")
    assert summary["state"] == "failed"
    assert summary["error"].startswith("ArithmeticError: this model fails")
    assert summary["objective"] is None
    assert "Traceback (most recent call last)" in (tmp_path / "out" / "run.log").read_text()


@pytest.mark.parametrize(("second", "code"), [(KeyboardInterrupt(), 130), (SystemExit(143), 143)])
def test_a_second_signal_while_the_end_is_recorded_is_reported(
    second: BaseException, code: int, cli: Cli, own_models: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise second

    monkeypatch.setattr(ending, "draw", interrupt)
    answer = cli(*_WITH_OWN_MODEL, "model=stopped", "hydra.run.dir=out")
    assert (answer.code, answer.err) == (code, "interrupted (run directory: out)\n")


@pytest.mark.slow
def test_an_interruption_is_reported_and_ends_a_sweep(cli: Cli, own_models: None, tmp_path: Path) -> None:
    answer = cli(*_WITH_OWN_MODEL, "model=stopped", "hydra.run.dir=one")
    assert answer.code == 130
    assert _summary(tmp_path / "one")["state"] == "interrupted"
    answer = cli(*_WITH_OWN_MODEL, "-m", "model=stopped", "seed=1,2", "hydra.sweep.dir=two")
    assert answer.code == 130
    assert _summary(tmp_path / "two" / "0")["state"] == "interrupted"
    assert not (tmp_path / "two" / "1" / "summary.json").exists()
    index = json.loads((tmp_path / "two" / "sweep.json").read_text())
    assert (index["state"], [job["state"] for job in index["jobs"]]) == ("interrupted", ["pending", "pending"])


@pytest.mark.hydra
def test_an_untrusted_model_is_refused_before_it_is_imported(cli: Cli, own_models: None, tmp_path: Path) -> None:
    (tmp_path / "fragile_models.py").write_text("raise SystemExit('imported')")
    answer = cli("--config-dir", "conf", "model=fragile")
    assert answer.code == 2
    assert "add --trust fragile_models only if you trust its code" in answer.err


def test_a_python_warning_is_one_line_and_in_the_log(cli: Cli, own_models: None, tmp_path: Path) -> None:
    words = [*_WITH_OWN_MODEL, "model=warning", "hydra.run.dir=out"]
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        answer = cli(*words)
    assert answer.code == 0
    assert answer.err.count("\n") == 1
    assert "UserWarning: careful" in answer.err
    assert "UserWarning: careful" in (tmp_path / "out" / "run.log").read_text()


def test_the_objective_is_the_metric_in_the_configuration(small: Cli, tmp_path: Path) -> None:
    small("objective=val/accuracy", "objective_mode=max", "hydra.run.dir=out")
    summary = _summary(tmp_path / "out")
    assert summary["objective"] == summary["metrics"]["val/accuracy"]
    assert summary["best"]["name"] == "val/accuracy"


def test_threads_and_determinism_are_set_only_during_the_run(small: Cli, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    assert small("device.num_threads=1", "deterministic=true", "hydra.run.dir=out").code == 0
    assert json.loads((tmp_path / "out" / "environment.json").read_text())["num_threads"] == 1
    assert torch.get_num_threads() == before
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.slow
@pytest.mark.parametrize(("hidden", "num_threads"), [("[8]", 1), ("[1000]", 2)])
def test_the_default_number_of_threads_depends_on_the_size_of_the_model(
    small: Cli, tmp_path: Path, hidden: str, num_threads: int
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert small(f"model.hidden={hidden}", "hydra.run.dir=out").code == 0
    finally:
        torch.set_num_threads(before)
    config = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())
    assert config["device"]["num_threads"] == num_threads
    assert json.loads((tmp_path / "out" / "environment.json").read_text())["num_threads"] == num_threads


def test_a_directory_that_holds_a_run_is_refused(small: Cli, recorded: Path) -> None:
    before = _summary(recorded)
    answer = small("hydra.run.dir=run")
    assert (answer.code, answer.err) == (2, "hydra.run.dir='run': contains a run already; name a new directory.\n")
    assert _summary(recorded) == before


def test_an_incomplete_environment_of_a_launcher_is_refused(small: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    expected = "expected a whole number from 0 to 1, which the launcher of several processes sets"
    assert small().err == f"RANK is not set: {expected}.\n"


@pytest.mark.slow
def test_a_run_without_validation_or_checkpoints(small: Cli, tmp_path: Path) -> None:
    answer = small("loop.eval_frequency=null", "~checkpoint", "hydra.run.dir=out")
    assert answer.code == 2
    answer = small("loop.eval_frequency=null", "checkpoint.every_n_steps=null", "hydra.run.dir=out")
    said = "objective='val/loss': nothing was validated, so this run has no objective.\n"
    assert (answer.code, answer.err) == (0, said)
    assert math.isfinite(_summary(tmp_path / "out")["metrics"]["train/loss"])


_WITH_OWN_MODEL = (
    "--config-dir",
    "conf",
    "--trust",
    "fragile_models",
    "data=synthetic",
    "data.num_train=24",
    "data.num_val=8",
    "loop.max_steps=2",
    "loop.eval_frequency=2",
    "loggers=none",
)


def _alive(*kinds: type) -> list[type]:
    """Return the types of all reachable objects of these classes."""
    gc.collect()
    return [type(found) for found in gc.get_objects() if issubclass(type(found), kinds)]


def _summary(run_dir: Path) -> Any:
    return json.loads((run_dir / "summary.json").read_text())


@pytest.mark.parametrize("place", ["file", "override"])
def test_a_configuration_cannot_grant_trust(cli: Cli, own_models: None, tmp_path: Path, place: str) -> None:
    (tmp_path / "fragile_models.py").write_text("raise SystemExit('imported')")
    (tmp_path / "conf" / "experiment").mkdir()
    trusts = "trust: [fragile_models]\n" if place == "file" else ""
    text = f"# @package _global_\ndefaults:\n  - override /model: fragile\n{trusts}"
    (tmp_path / "conf" / "experiment" / "shared.yaml").write_text(text)
    words = ["--config-dir=conf", "experiment=shared", *(["+trust=[fragile_models]"] if place == "override" else [])]
    answer = cli(*words)
    assert answer.code == 2 and answer.err.count("\n") == 1
    assert "add --trust fragile_models only if you trust its code" in answer.err


@pytest.mark.slow
def test_the_plan_of_a_resumed_run_is_the_rest(small: Cli, recorded: Path) -> None:
    answer = small("plan", "ckpt_path=run", "loop.max_steps=6")
    assert "train 2 steps, from global_step 4 to 6" in answer.out
    answer = small("plan", "ckpt_path=run", "loop.grad_accum_steps=2")
    assert answer.code == 2 and "grad_accum_steps: 1 -> 2" in answer.err


@pytest.mark.parametrize(
    ("words", "difference"),
    [
        (["optimizer.lr=0.1"], "optimizer.lr: 0.003 recorded, 0.1 now"),
        (["optimizer=sgd"], "optimizer: loopwright.optim.adamw recorded, loopwright.optim.sgd now"),
        (["seed=5"], "seed: 0 recorded, 5 now"),
        (["data.num_train=32"], "data.num_train: 24 recorded, 32 now"),
    ],
)
def test_a_run_is_not_resumed_with_other_settings(
    small: Cli, recorded: Path, tmp_path: Path, words: list[str], difference: str
) -> None:
    answer = small("hydra.run.dir=other", "ckpt_path=run", "loop.max_steps=6", *words)
    assert answer.code == 2 and answer.err.count("\n") == 1
    assert difference in answer.err and "init_from" in answer.err
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_a_misspelt_metric_stops_a_run_before_its_first_step(small: Cli, tmp_path: Path) -> None:
    answer = small("objective=val/los", "objective_mode=min", "hydra.run.dir=out")
    assert answer.code == 2 and "objective='val/los': no such metric." in answer.err
    assert answer.err.endswith("Did you mean val/loss? (traceback in out/run.log)\n")
    summary = _summary(tmp_path / "out")
    assert (summary["global_step"], summary["objective"]) == (0, None)
    answer = small("checkpoint.monitor=train/foo", "checkpoint.mode=min", "hydra.run.dir=other")
    assert answer.code == 0 and "checkpoint.monitor='train/foo': no such metric was logged." in answer.err


def test_the_printed_commands_repeat_the_trusted_packages(cli: Cli, own_models: None, tmp_path: Path) -> None:
    answer = cli(*_WITH_OWN_MODEL, "model=fragile", "model.fails=false", "hydra.run.dir=out")
    command = answer.out.split("Validate it: loopwright ")[1].split("\n")[0].split()
    assert command == ["validate", "--trust=fragile_models", "out"]
    assert cli(*command).code == 0


@pytest.mark.slow
def test_a_failed_job_does_not_stop_the_others_and_each_can_be_run_alone(
    cli: Cli, own_models: None, tmp_path: Path
) -> None:
    before = _alive(Trainer)  # other tests may hold some
    answer = cli(*_WITH_OWN_MODEL, "-m", "model=fragile", "model.fails=true,false", "hydra.sweep.dir=out")
    assert answer.code == 1
    assert "job 0 failed: ArithmeticError: this model fails" in answer.out
    assert "1 of 2 jobs done, 1 failed, in 0:" in answer.out
    assert "nan" not in answer.out
    assert _alive(Trainer) == before
    assert [_summary(tmp_path / "out" / number)["state"] for number in ("0", "1")] == ["failed", "completed"]
    assert answer.err.count("\n") == 1 and answer.err.startswith("job 0 failed: ArithmeticError: this model fails")
    jobs = json.loads((tmp_path / "out" / "sweep.json").read_text())["jobs"]
    assert [job["state"] for job in jobs] == ["failed", "done"]
    assert "model.fails=false" in [word.lower() for word in jobs[1]["overrides"]]
    command = (tmp_path / "out" / "1" / "command.txt").read_text().split()[1:]
    assert (
        "-m" not in command and "model.fails=false" in map(str.lower, command) and "--trust=fragile_models" in command
    )


def test_files_that_would_never_be_read_are_refused(cli: Cli, tmp_path: Path) -> None:
    for name in ("model/mlp.yaml", "hydra/launcher/mine.yaml"):
        (tmp_path / "mine" / name).parent.mkdir(parents=True)
        (tmp_path / "mine" / name).write_text("hidden: [3]\n")
        answer = cli("config", "--config-dir=mine")
        assert answer.code == 2 and answer.err.count("\n") == 1 and name in answer.err
        (tmp_path / "mine" / name).unlink()


@pytest.mark.slow
def test_modules_that_cannot_be_imported_are_reported(cli: Cli, own_models: None, tmp_path: Path) -> None:
    for text, what in (("def", "SyntaxError"), ("raise SystemExit(3)", "SystemExit")):
        name = f"unusable_{what.lower()}"
        (tmp_path / f"{name}.py").write_text(text)
        (tmp_path / "conf" / "model" / "unusable.yaml").write_text(f"_target_: {name}.Model\n")
        answer = cli("--config-dir=conf", f"--trust={name}", "model=unusable")
        assert answer.code == 2 and "expected an importable module" in answer.err and what in answer.err


def test_directories_that_are_not_writable_give_exit_code_2(small: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    answer = small("hydra.run.dir=file/run")
    assert answer.code == 2 and "hydra.run.dir='file/run': cannot be created (Not a directory" in answer.err
    (tmp_path / "outputs").write_text("")
    answer = small()
    assert answer.code == 2 and "cannot be created" in answer.err and "hydra.run.dir=DIR" in answer.err


@pytest.mark.slow
def test_a_sweep_over_every_option_of_a_group(small: Cli) -> None:
    answer = small("plan", "-m", "precision=glob(*)")
    assert answer.code == 0 and "precision=float32" in answer.out
    assert small("-sc").code == 2


def test_a_group_cannot_be_chosen_for_a_recorded_run(recorded: Path, cli: Cli) -> None:
    answer = cli("validate", "run", "data=digits")
    assert answer.code == 2 and "a recorded run keeps its option of data; change one value" in answer.err
