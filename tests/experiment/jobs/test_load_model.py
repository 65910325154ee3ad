"""`loopwright.load_model` returns the model of a run with the weights of a checkpoint."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import loopwright
from command import run_in, small_run
from loopwright import Checkpointing, TrainingLoop
from loopwright.callbacks import ExponentialMovingAverage
from loopwright.errors import CheckpointError, SettingError
from loopwright.models import MLP
from tiny import Regression, batches, is_bitwise_equal, trainer, weights

BATCH = {"features": torch.rand(3, 64)}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the run ``run``."""
    root = tmp_path_factory.mktemp("runs")
    assert run_in(root, *small_run("hydra.run.dir=run", "checkpoint.keep_last=null")).code == 0
    return root


def test_the_model_predicts_as_in_the_run(runs: Path) -> None:
    before = torch.get_rng_state()
    model = loopwright.load_model(runs / "run" / "last")
    assert isinstance(model, MLP) and not model.training and torch.equal(torch.get_rng_state(), before)
    exported = run_in(runs, "export", "run/last", "output=last.safetensors")
    assert exported.code == 0
    assert is_bitwise_equal(weights(model), load_file(runs / "last.safetensors"))
    assert model.predict(BATCH)["prediction"].shape == (3,)


@pytest.mark.parametrize("step", [2, 4])
def test_a_checkpoint_is_taken_as_it_is(runs: Path, step: int) -> None:
    folder = runs / "run" / "checkpoints" / f"step_{step:08d}"
    own = MLP(hidden=[4], dropout=0.1)
    assert loopwright.load_model(folder, model=own) is own
    assert is_bitwise_equal(
        weights(own), weights(loopwright.load_model(folder, model=lambda: MLP(hidden=[4], dropout=0.1)))
    )
    assert is_bitwise_equal(weights(own), weights(loopwright.load_model(folder)))


def test_the_best_is_the_default(runs: Path) -> None:
    assert is_bitwise_equal(
        weights(loopwright.load_model(runs / "run")), weights(loopwright.load_model(runs / "run" / "best"))
    )


def test_validated_weights_are_averages(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"run_dir": tmp_path, "checkpoint": Checkpointing()}
    with trainer(TrainingLoop(num_steps=5), callbacks=[ExponentialMovingAverage(0.5)], **settings) as each:
        each.fit(batches(), batches(2))
        validated = each.validate(batches(2))
    trained = loopwright.load_model(tmp_path, model=Regression, weights="trained")
    averaged = loopwright.load_model(tmp_path, model=Regression)
    assert is_bitwise_equal(weights(trained), weights(each)) and not is_bitwise_equal(weights(averaged), weights(each))
    with trainer(model=averaged, optimizer=None) as other:
        assert other.validate(batches(2)) == validated


def test_a_run_made_in_python_needs_the_model(tmp_path: Path) -> None:
    with trainer(TrainingLoop(num_steps=2), run_dir=tmp_path, checkpoint=Checkpointing()) as each:
        each.fit(batches())
    with pytest.raises(SettingError, match=r"model: must be given, because .* has no config.yaml; a run made"):
        loopwright.load_model(tmp_path)


def test_a_class_that_is_not_trusted_is_refused(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "run", tmp_path / "run")
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace("loopwright.models.MLP", "os.system"))
    for trust in ((), "os", ["os"]):
        with pytest.raises(SettingError, match="os"):
            loopwright.load_model(tmp_path / "run", trust=trust)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"weights": "averaged"}, SettingError, "weights='averaged': expected validated or trained"),
        ({"model": 3}, TypeError, "callable"),
        ({"model": lambda: 3}, SettingError, "model=3: expected a torch.nn.Module"),
        ({"model": lambda: MLP(hidden=[5])}, CheckpointError, "step_0000000.: the checkpoint does not fit the model"),
        ({"path": "nowhere"}, CheckpointError, "nowhere: no such folder"),
        ({"device": "gpuu"}, SettingError, "Did you mean gpu"),
    ],
)
def test_wrong_arguments_are_refused(runs: Path, change: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        loopwright.load_model(**{"path": runs / "run", **change})
