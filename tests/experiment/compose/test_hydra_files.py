"""The folder .hydra of a run equals the folder that Hydra's main function writes, without the settings of sweeps."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from loopwright.experiment.compose.composer import composing
from loopwright.experiment.compose.hydra_files import write_hydra_files
from loopwright.experiment.compose.hydra_main import run_hydra

pytestmark = pytest.mark.hydra

WORDS = ["model=cnn", "loop.max_steps=7", "hydra.run.dir=run"]


def test_the_files_equal_the_files_of_hydra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "ours").mkdir()
    monkeypatch.chdir(tmp_path / "theirs")
    run_hydra(WORDS, lambda config: 0.0)
    monkeypatch.chdir(tmp_path / "ours")
    with composing(None) as composer:
        composed = composer.compose(WORDS)
    write_hydra_files(Path("run"), composed.source)
    theirs, ours = (tmp_path / name / "run" / ".hydra" for name in ("theirs", "ours"))
    assert (ours / "overrides.yaml").read_text() == (theirs / "overrides.yaml").read_text()
    whole = OmegaConf.load(theirs / "config.yaml")
    del whole["sweep"]
    assert (ours / "config.yaml").read_text() == OmegaConf.to_yaml(whole)
    their_tree, our_tree = (yaml.safe_load((folder / "hydra.yaml").read_text())["hydra"] for folder in (theirs, ours))
    for tree, place in ((their_tree, "theirs"), (our_tree, "ours")):
        assert tree["runtime"].pop("output_dir") == str(tmp_path / place / "run")
        assert tree["runtime"].pop("cwd") == str(tmp_path / place)
        tree["job"].pop("name")  # Hydra names a job after the module of its task
        tree["overrides"].pop("hydra")  # Hydra adds its mode to these
    assert our_tree == their_tree


def test_a_job_of_a_sweep_is_numbered(tmp_path: Path) -> None:
    with composing(None) as composer:
        composed = composer.compose(["loop.max_steps=7"])
    write_hydra_files(tmp_path / "3", composed.source, 3)
    tree = yaml.safe_load((tmp_path / "3" / ".hydra" / "hydra.yaml").read_text())["hydra"]
    assert (tree["job"]["num"], tree["job"]["id"], tree["mode"]) == (3, "3", "MULTIRUN")
    assert tree["sweep"]["dir"] == str(tmp_path)
