"""`find_run` finds a run by ``last`` and by the six digits at the end of its name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from command import Answer, run_dirs
from loopwright.errors import CheckpointError
from loopwright.experiment.rundir.find_run import find_run

Cli = Callable[..., Answer]


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make four runs in ``outputs/``, of which ``mine`` is the newest, and a sweep."""
    monkeypatch.chdir(tmp_path)
    names = ("a/2026-01-01_00-00-00_aaaaaa", "b/2026-01-02_00-00-00_0123ab", "b/2026-01-03_00-00-00_bbbbbb", "mine")
    for seconds, name in enumerate((*names, "b/2026-01-04_00-00-00_cccccc_sweep/0")):
        config = tmp_path / "outputs" / name / "config.yaml"
        config.parent.mkdir(parents=True)
        config.write_text("loop: {_target_: loopwright.loop.TrainingLoop}\n")
        os.utime(config, (seconds, seconds))
    return tmp_path / "outputs"


def test_last_is_the_newest_run_that_is_not_a_job_of_a_sweep(outputs: Path) -> None:
    assert find_run("last") == "outputs/mine"
    config = outputs / "a" / "2026-01-01_00-00-00_aaaaaa" / "config.yaml"
    os.utime(config, (99, 99))  # as a resume does
    assert find_run("last") == str(config.parent.relative_to(outputs.parent))


def test_last_is_not_a_job_of_a_sweep_whose_directory_the_user_named(outputs: Path) -> None:
    (outputs / "mine" / "config.yaml").unlink()
    (outputs / "mine" / "0").mkdir()
    (outputs / "mine" / "sweep.json").write_text("{}")
    (outputs / "mine" / "0" / "config.yaml").write_text("loop: {_target_: loopwright.loop.TrainingLoop}\n")
    assert find_run("last") == "outputs/b/2026-01-03_00-00-00_bbbbbb"


def test_last_is_a_run_with_a_checkpoint_if_there_is_one(outputs: Path) -> None:
    """A run that is refused before its first step leaves its log, and no checkpoint."""
    run = outputs / "b" / "2026-01-02_00-00-00_0123ab"
    (run / "checkpoints" / "step_00000004").mkdir(parents=True)
    assert find_run("last") == str(run.relative_to(outputs.parent))


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("0123ab", "outputs/b/2026-01-02_00-00-00_0123ab"),
        ("cccccc", "outputs/b/2026-01-04_00-00-00_cccccc_sweep"),
        ("cccccc/0", "outputs/b/2026-01-04_00-00-00_cccccc_sweep/0"),
        ("0123ab/best", "outputs/b/2026-01-02_00-00-00_0123ab/best"),
        ("last/last", "outputs/mine/last"),
        ("other/best", "other/best"),
        ("outputs/mine", "outputs/mine"),
        ("other/run", "other/run"),
    ],
)
def test_six_digits_name_a_run(outputs: Path, given: str, found: str) -> None:
    assert find_run(given) == found


@pytest.mark.parametrize("name", ["last", "0123ab"])
def test_a_path_that_exists_comes_first(outputs: Path, name: str) -> None:
    (outputs.parent / name).mkdir()
    assert find_run(name) == name


def test_what_is_not_found_is_refused(outputs: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"^dddddd: no such path, and no name of a run directory in outputs/ ends with dddddd.$"
    ):
        find_run("dddddd")
    (outputs / "a" / "2026-05-01_00-00-00_0123ab").mkdir()
    with pytest.raises(
        CheckpointError,
        match=r"^0123ab: the names of several run directories contain 0123ab: outputs/a/.*; outputs/b/.*ab.$",
    ):
        find_run("0123ab")


def test_last_is_no_validation(outputs: Path) -> None:
    config = outputs / "validated" / "config.yaml"
    config.parent.mkdir()
    config.write_text("loop: {_target_: loopwright.loop.ValidationLoop}\n")
    assert find_run("last") == "outputs/mine"


def test_links_are_not_followed(outputs: Path, tmp_path: Path) -> None:
    (outputs / "a" / "2026-05-01_00-00-00_dddddd").symlink_to(outputs / "mine")
    with pytest.raises(CheckpointError, match="no such path"):
        find_run("dddddd")


def test_without_a_run_last_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"^last: no training in outputs/; expected the path of a run dir"):
        find_run("last")
    (tmp_path / "outputs" / "swept").mkdir(parents=True)
    (tmp_path / "outputs" / "swept" / "sweep.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"^last: no training except sweeps in .* use loopwright sweep show last"):
        find_run("last")


@pytest.mark.parametrize("verb", ["resume", "validate", "reproduce", "export"])
def test_every_verb_accepts_both(verb: str, small: Cli, cli: Cli, tmp_path: Path) -> None:
    assert small().code == 0
    (run_dir,) = run_dirs(tmp_path)
    for given, option in (("last", "output=a.safetensors"), (run_dir.name[-6:], "output=b.safetensors")):
        answer = cli(verb, given, *([option] if verb == "export" else []))
        assert (answer.code, answer.err) == (0, ""), answer
        assert run_dir.name in answer.out
        os.utime(run_dir / "config.yaml", (2**32, 2**32))  # newer than the run of the reproduction
    assert cli(verb, "ffffff").code == 3


def test_a_resumed_run_records_the_path(small: Cli, cli: Cli, tmp_path: Path) -> None:
    assert small().code == 0
    assert cli("resume", "last", "loop.max_steps=6").code == 0
    (run_dir,) = run_dirs(tmp_path)
    command = (run_dir / "command.txt").read_text().splitlines()[-1]
    assert command == f"loopwright resume {run_dir.relative_to(tmp_path)} loop.max_steps=6"


@pytest.mark.slow
def test_a_run_can_start_from_both(small: Cli, cli: Cli, tmp_path: Path) -> None:
    assert small().code == 0
    (run_dir,) = run_dirs(tmp_path)
    shown = run_dir.relative_to(tmp_path)
    for number, given in enumerate(("last", run_dir.name[-6:], "last/best")):
        assert small(f"init_from={given}", f"hydra.run.dir=run{number}").code == 0
        assert f"init_from: {shown}" in (tmp_path / f"run{number}" / "config.yaml").read_text()
    words = ["data=synthetic", "data.num_train=24", "data.num_val=8", "data.batch_size=4", "model.hidden=[4]"]
    assert cli("loop=validation", "ckpt_path=last", "hydra.run.dir=validated", *words).code == 0
    assert f"ckpt_path={shown}" in (tmp_path / "validated" / "command.txt").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["validate", "predict", "export"])
def test_a_checkpoint_can_be_named_after_the_run(verb: str, small: Cli, cli: Cli) -> None:
    assert small("hydra.run.dir=outputs/mine").code == 0
    words = [] if verb == "validate" else [f"output={verb}.{'csv' if verb == 'predict' else 'safetensors'}"]
    answer = cli(verb, "last/best", *words)
    assert (answer.code, answer.err) == (0, "") and "best val/loss" in answer.out


def test_a_run_without_a_checkpoint_cannot_be_resumed(cli: Cli) -> None:
    assert cli("data=synthetic", "loop.max_steps=2", "checkpoint=none", "hydra.run.dir=run").code == 0
    answer = cli("resume", "run", "loop.max_steps=8")
    assert answer.code == 3
    assert answer.err == "run: the run ended before its first checkpoint; start a new run.\n"
