"""Files of a run directory that are not regular files, or have no end, block no function that reads or writes them."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

import special
import tiny
from loopwright import Checkpointing, TrainingLoop
from loopwright.errors import CheckpointError, SaveError
from loopwright.experiment.launch.supervisor import newest_step
from loopwright.experiment.rundir.origin import origin_digests
from loopwright.experiment.rundir.run_log import run_log
from loopwright.experiment.verify.reproduction import read_outcome
from loopwright.loggers import JSONLinesLogger
from loopwright.records import read_environment

pytestmark = pytest.mark.timeout(30)
KINDS = [*special.KINDS, "holes"]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    with tiny.trainer(TrainingLoop(num_steps=1), checkpoint=Checkpointing(), run_dir=tmp_path) as trainer:
        trainer.fit(tiny.batches())
    return tmp_path / "checkpoints" / "step_00000001"


@pytest.mark.parametrize("kind", KINDS)
def test_a_manifest_that_never_ends_is_no_manifest(kind: str, checkpoint: Path) -> None:
    run_dir = checkpoint.parent.parent
    assert newest_step(run_dir) == 1
    special.make(checkpoint / "manifest.json", kind)
    assert newest_step(run_dir) is None
    assert origin_digests([checkpoint]) == {str(checkpoint): None}


@pytest.mark.parametrize("kind", KINDS)
def test_an_environment_that_never_ends_is_refused(kind: str, tmp_path: Path) -> None:
    special.make(tmp_path / "environment.json", kind)
    with pytest.raises(CheckpointError, match=r"environment\.json: cannot be read: "):
        read_environment(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_metrics_that_never_end_are_refused_in_a_comparison(kind: str, tmp_path: Path) -> None:
    special.make(tmp_path / "metrics.jsonl", kind)
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl: cannot be read: "):
        read_outcome(tmp_path, is_training=True)


@pytest.mark.parametrize("kind", special.KINDS)
def test_metrics_are_not_written_into_other_files(kind: str, tmp_path: Path) -> None:
    special.make(tmp_path / "metrics.jsonl", kind)
    loggers = [JSONLinesLogger()]
    with pytest.raises(SaveError, match=r"metrics\.jsonl: cannot be (read|written): not a regular"):
        with tiny.trainer(
            TrainingLoop(num_steps=1), loggers=loggers, checkpoint=Checkpointing(), run_dir=tmp_path
        ) as trainer:
            trainer.fit(tiny.batches())


@pytest.mark.parametrize("kind", special.KINDS)
def test_messages_are_not_written_into_other_files(kind: str, tmp_path: Path) -> None:
    special.make(tmp_path / "run.log", kind)
    with pytest.raises(SaveError, match=r"run\.log: cannot be written: not a regular file"):
        with run_log(tmp_path / "run.log"):
            logging.getLogger("loopwright").warning("x" * 100_000)
