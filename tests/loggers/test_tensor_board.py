"""Tests of `TensorBoardLogger`: its event files, and the error if tensorboard is not installed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor
from torch.utils.data import DataLoader

import tiny
from command import run_in, small_run
from loopwright import Checkpointing, TrainingLoop
from loopwright.loggers import TensorBoardLogger

needs_extra = pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="needs the extra tensorboard")


def events(run_dir: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(run_dir / "tensorboard")).Reload()


def points(run_dir: Path, name: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in events(run_dir).Scalars(name)]


def validation() -> DataLoader[tuple[Tensor, ...]]:
    return DataLoader(tiny.rows(8), batch_size=4)


@pytest.mark.extras
@needs_extra
def test_tensorboard_reads_metrics_timings_and_texts(tmp_path: Path) -> None:
    logger = TensorBoardLogger()
    with tiny.trainer(TrainingLoop(num_steps=4), loggers=[logger], log_every_n_steps=2, run_dir=tmp_path) as trainer:
        result = trainer.fit(tiny.batches(), validation())
        logger.log_text({"val/sample": "a b\nc"}, 4)
    assert points(tmp_path, "val/loss") == [(4, pytest.approx(result.metrics["val/loss"]))]
    assert [step for step, _ in points(tmp_path, "train/loss")] == [2, 4]
    assert [step for step, _ in points(tmp_path, "timing/train/steps_per_second")] == [2, 4]
    assert "val/sample/text_summary" in events(tmp_path).Tags()["tensors"]


@pytest.mark.extras
@needs_extra
def test_events_are_on_disk_after_each_validation(tmp_path: Path) -> None:
    seen: list[list[int]] = []

    def look(trainer: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step in (3, 5):
            seen.append([step for step, _ in points(tmp_path, "val/loss")])

    loop = TrainingLoop(num_steps=5, eval_frequency=2)
    with tiny.trainer(
        loop, loggers=[TensorBoardLogger()], callbacks=[tiny.Recorder(look)], run_dir=tmp_path
    ) as trainer:
        trainer.fit(tiny.batches(), validation())
    assert seen == [[2], [2, 4]]


@pytest.mark.extras
@needs_extra
def test_a_resumed_run_has_each_step_once(tmp_path: Path) -> None:
    def run(num_steps: int, ckpt_path: Path | None = None) -> None:
        with tiny.trainer(
            TrainingLoop(max_steps=num_steps),
            loggers=[TensorBoardLogger()],
            checkpoint=Checkpointing(every_n_steps=2),
            log_every_n_steps=1,
            run_dir=tmp_path,
        ) as trainer:
            trainer.fit(tiny.batches(), ckpt_path=ckpt_path)

    run(4)
    run(5, tmp_path / "checkpoints" / "step_00000002")
    assert [step for step, _ in points(tmp_path, "train/loss")] == [1, 2, 3, 4, 5]


@pytest.mark.extras
@needs_extra
def test_no_file_is_written_if_nothing_is_logged_and_closing_twice_is_harmless(tmp_path: Path) -> None:
    logger = TensorBoardLogger()
    tiny.trainer(loggers=[logger], run_dir=tmp_path / "run").close()
    logger.finalize()
    assert list((tmp_path / "run").iterdir()) == []


def test_a_trainer_without_a_run_directory_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^run_dir=null: expected a directory for tensorboard"):
        tiny.trainer(loggers=[TensorBoardLogger()])


def test_a_missing_package_is_an_error_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match=r"pip install 'loopwright\[tensorboard\]'"):
        tiny.trainer(loggers=[TensorBoardLogger()], run_dir=tmp_path)


def sessions(logdir: Path) -> dict[str, dict[str, Any]]:
    """Return the hyper-parameters of each session, by its folder, as TensorBoard's plugin reads them."""
    from google.protobuf import struct_pb2
    from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins import base_plugin
    from tensorboard.plugins.hparams import backend_context, metadata

    multiplexer = plugin_event_multiplexer.EventMultiplexer().AddRunsFromDirectory(str(logdir)).Reload()
    provider = data_provider.MultiplexerDataProvider(multiplexer, str(logdir))
    context = backend_context.Context(base_plugin.TBContext(data_provider=provider))
    found = context.hparams_metadata(RequestContext(), "")
    result = {}
    for run, tags in found.items():
        assert metadata.EXPERIMENT_TAG not in tags, "it would hide the hyper-parameters of other runs"
        assert metadata.SESSION_END_INFO_TAG in tags
        start = metadata.parse_session_start_info_plugin_data(tags[metadata.SESSION_START_INFO_TAG])
        assert all(isinstance(value, struct_pb2.Value) for value in start.hparams.values())
        result[run] = {key: getattr(value, value.WhichOneof("kind")) for key, value in start.hparams.items()}
    return result


@pytest.mark.extras
@pytest.mark.slow
@needs_extra
def test_each_job_of_a_sweep_is_a_session_with_its_factors_and_changes(tmp_path: Path) -> None:
    words = ["-m", "seed=0,1", "model.hidden=[4],[4,4]", "optimizer.lr=0.25", "loggers=[json_lines,tensorboard]"]
    answer = run_in(tmp_path, *small_run(*words, "hydra.sweep.dir=swept"))
    assert answer.code == 0, answer.err
    found = sessions(tmp_path / "swept")
    assert sorted(found) == [f"{number}/tensorboard" for number in range(4)]
    assert sorted(values["model.hidden"] for values in found.values()) == ["[4, 4]", "[4, 4]", "[4]", "[4]"]
    assert {(values["optimizer.lr"], values["data"]) for values in found.values()} == {(0.25, "synthetic")}
    assert sorted(values["seed"] for values in found.values()) == [0, 0, 1, 1]
    for number in range(4):
        assert [step for step, _ in points(tmp_path / "swept" / str(number), "val/loss")] == [2, 4]


@pytest.mark.extras
@needs_extra
def test_a_resumed_run_is_one_session_in_one_folder(tmp_path: Path) -> None:
    assert run_in(tmp_path, *small_run("loggers=[json_lines,tensorboard]", "hydra.run.dir=run")).code == 0
    before = sessions(tmp_path / "run")
    assert run_in(tmp_path, "resume", "run", "loop.max_steps=6").code == 0
    assert sessions(tmp_path / "run") == before
    assert before["tensorboard"]["loop.max_steps"] == 4
    assert [step for step, _ in points(tmp_path / "run", "val/loss")] == [2, 4, 6]
