"""Tests of `Metrics` with torchmetrics."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import tiny
from loopwright import Checkpointing, Logger, Trainer, TrainingLoop
from loopwright.callbacks import Metrics
from loopwright.data import Loader
from ranked import on_ranks

torchmetrics = pytest.importorskip("torchmetrics", reason="needs the extra metrics")

pytestmark = pytest.mark.extras


class Predicting(tiny.Regression):
    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        features, target = batch
        prediction = self.layers(features)
        return {"loss": (prediction - target).square().mean(), "prediction": prediction}


class Named(Predicting):
    def forward(self, batch: Any) -> dict[str, Tensor]:
        return super().forward((batch["features"], batch["target"]))


class Seen(Logger):
    def __init__(self) -> None:
        self.values: dict[tuple[int, str], float] = {}

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        self.values |= {(step, name): value for name, value in metrics.items()}


def validation() -> DataLoader[tuple[Tensor, ...]]:
    return DataLoader(tiny.rows(8), batch_size=4)


def r2(**metrics: Any) -> Metrics:
    return Metrics(metrics or {"r2": torchmetrics.R2Score()}, inputs=("prediction", 1))


def trainer(loop: TrainingLoop, callback: Metrics, **settings: Any) -> Trainer:
    return tiny.trainer(loop, **{"model": Predicting, "callbacks": [callback], **settings})


def r2_of(model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> float:
    features, target = (torch.cat(parts) for parts in zip(*batches, strict=True))
    with torch.no_grad():
        prediction = model((features, target))["prediction"]
    return float(1 - (target - prediction).square().sum() / (target - target.mean()).square().sum())


def test_a_validation_metric_is_computed_over_the_whole_set_for_each_dataloader() -> None:
    sets = {"a": tiny.batches(3), "b": [*tiny.batches(2), tiny.batches(1, 3)[0]]}
    with trainer(TrainingLoop(num_steps=4), r2()) as t:
        result = t.fit(tiny.batches(), sets)
        validated = t.validate(sets)
        rows = t.validate_all(sets)
    for name, batches in sets.items():
        expected = pytest.approx(r2_of(t.model, batches), rel=1e-5)
        assert result.metrics[f"val/{name}/r2"] == expected
        assert validated[f"val/{name}/r2"] == expected
    assert [sorted(row.metrics) for row in rows] == [["val/a/loss", "val/a/r2"], ["val/b/loss", "val/b/r2"]]
    assert t.validation_name is None


def test_a_training_metric_covers_the_micro_batches_since_the_last_log_step() -> None:
    seen = Seen()
    counting = Metrics({"count": torchmetrics.SumMetric()}, inputs=(1,))
    ones = [(torch.randn(2, 4), torch.ones(2, 1)) for _ in range(20)]
    with trainer(
        TrainingLoop(num_steps=7, grad_accum_steps=2),
        counting,
        loggers=[seen],
        log_every_n_steps=3,
    ) as t:
        t.fit(ones)
    counts = {step: value for (step, name), value in seen.values.items() if name == "train/count"}
    assert counts == {3: 12.0, 6: 12.0, 7: 4.0}  # steps x 2 micro-batches x 2 samples


def test_inputs_from_a_batch_that_is_a_mapping_are_given_by_name() -> None:
    batches = [dict(zip(("features", "target"), batch, strict=True)) for batch in tiny.batches()]
    named = Metrics({"mse": torchmetrics.MeanSquaredError()}, inputs=("prediction", "target"))
    with trainer(TrainingLoop(num_steps=2), named, model=Named) as t:
        metrics = t.fit(batches, {"a": batches}).metrics
    assert metrics["val/a/mse"] == pytest.approx(metrics["val/a/loss"], rel=1e-5)


def test_the_trained_weights_are_the_same_as_without_metrics() -> None:
    trained = []
    for callbacks in ([], [r2()]):
        with tiny.trainer(TrainingLoop(num_steps=6, eval_frequency=2), model=Predicting, callbacks=callbacks) as t:
            t.fit(tiny.batches(), validation())
        trained.append(tiny.weights(t))
    assert tiny.is_bitwise_equal(*trained)


@pytest.mark.filterwarnings("ignore:Metric `SpearmanCorrcoef` will save all")
@pytest.mark.parametrize("make", ["R2Score", "SpearmanCorrCoef"])  # their states are sums, and a list of all values
def test_a_resumed_run_logs_the_same_values_as_a_straight_run(tmp_path: Path, make: str) -> None:
    def run(name: str, num_steps: int, ckpt_path: Path | None = None) -> dict[tuple[int, str], float]:
        seen = Seen()
        callback = Metrics({"m": getattr(torchmetrics, make)()}, inputs=("prediction", 1))
        with trainer(
            TrainingLoop(max_steps=num_steps),
            callback,
            loggers=[seen],
            log_every_n_steps=4,
            checkpoint=Checkpointing(every_n_steps=3),
            run_dir=tmp_path / name,
        ) as t:
            t.fit(tiny.batches(), ckpt_path=ckpt_path)
        return seen.values

    straight = run("straight", 8)
    resumed = run("resumed", 8, tmp_path / "straight" / "checkpoints" / "step_00000003")
    assert resumed == {key: value for key, value in straight.items() if key[0] > 3}
    assert (4, "train/m") in resumed


def test_a_metric_that_computes_a_mapping_is_logged_under_the_keys() -> None:
    both = torchmetrics.MetricCollection({"mse": torchmetrics.MeanSquaredError(), "r2": torchmetrics.R2Score()})
    with trainer(TrainingLoop(num_steps=1), r2(all=both)) as t:
        assert {"val/all_mse", "val/all_r2"} <= t.fit(tiny.batches(), validation()).metrics.keys()


def test_a_scheduler_can_monitor_a_metric() -> None:
    monitored = {"scheduler": lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o), "monitor": "val/r2"}
    with trainer(TrainingLoop(num_steps=2), r2(), schedulers=[monitored]) as t:
        t.fit(tiny.batches(), validation())


def test_the_given_metric_is_not_changed_and_a_second_trainer_can_use_the_callback() -> None:
    given = torchmetrics.R2Score()
    callback = r2(r2=given)
    for _ in range(2):
        with trainer(TrainingLoop(num_steps=2), callback) as t:
            t.fit(tiny.batches(), validation())
    assert given.update_count == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Metrics({}), "metrics={}: expected a mapping of names to metrics of torchmetrics."),
        (lambda: Metrics({"x": torchmetrics.R2Score}), "expected a torchmetrics.Metric."),
        (lambda: Metrics({"x": nn.Linear(1, 1)}), "expected a torchmetrics.Metric."),
        (lambda: Metrics({"x": torchmetrics.R2Score()}, inputs="logits"), "expected names such as [logits, target]."),
    ],
)
def test_wrong_settings_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        make()
    assert str(caught.value).endswith(message)


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (
            lambda: Metrics({"r2": torchmetrics.R2Score()}, inputs=("predictions", 1)),
            "inputs: predictions was not found; expected an output of the model (loss, prediction) or an entry of the "
            "batch (0, 1); return predictions from the model, or name other inputs. Did you mean prediction?",
        ),
        (
            lambda: r2(loss=torchmetrics.R2Score()),
            "metrics.loss: the model's outputs already use this name; expected a name that they do not use.",
        ),
    ],
)
def test_inputs_and_names_that_do_not_fit_the_outputs_are_refused_at_the_first_batch(
    callback: Any, message: str
) -> None:
    with pytest.raises((ValueError, TypeError)) as caught, trainer(TrainingLoop(num_steps=1), callback()) as t:
        t.fit(tiny.batches())
    assert str(caught.value).startswith(message)


def test_a_metric_that_does_not_compute_a_single_number_is_refused() -> None:
    class Two(torchmetrics.SumMetric):  # type: ignore[misc]  # importorskip returns an untyped module
        def compute(self) -> Tensor:
            return torch.zeros(2)

    callback = Metrics({"two": Two()}, inputs=(1,))
    with pytest.raises(ValueError, match=r"metrics\.two: computes a value of shape \(2,\); expected a single number"):
        trainer(TrainingLoop(num_steps=1), callback).fit(tiny.batches())


def many(rank: int, run_dir: Path, how: str, kind: str) -> dict[tuple[int, str], float]:
    """Train 9 steps with a metric, or crash after step 7, or resume from the checkpoint of step 6."""
    seen = Seen()
    callback = Metrics({"m": getattr(torchmetrics, kind)()}, inputs=("prediction", 1))

    def crash(trainer: Any, batch: Any, batch_idx: int) -> None:
        if how == "crash" and trainer.global_step == 7:
            raise RuntimeError("crashed")

    ours = trainer(
        TrainingLoop(num_steps=9, grad_accum_steps=2, eval_frequency=4),
        callback,
        callbacks={"metrics": callback, "crash": tiny.Recorder(crash)},
        loggers=[seen],
        log_every_n_steps=4,
        checkpoint=Checkpointing(every_n_steps=3),
        run_dir=run_dir,
    )
    data = Loader(tiny.rows(23), batch_size=3, shuffle=True)  # the last micro-batch of a pass has two rows
    with pytest.raises(RuntimeError, match="crashed") if how == "crash" else nullcontext():
        ours.fit(data, Loader(tiny.rows(9), batch_size=4), ckpt_path="last" if how == "resume" else None)
    return seen.values


@pytest.mark.filterwarnings("ignore:Metric `SpearmanCorrcoef` will save all")
@pytest.mark.parametrize("kind", ["MeanSquaredError", "SpearmanCorrCoef"])
def test_metrics_cover_the_rows_of_all_processes_also_after_a_resume(kind: str, tmp_path: Path) -> None:
    alone = many(0, tmp_path / "alone", "straight", kind)
    straight = on_ranks(3, many, tmp_path / "straight", "straight", kind)[0]
    assert straight == pytest.approx(alone, rel=1e-4)
    on_ranks(3, many, tmp_path / "cut", "crash", kind)
    resumed = on_ranks(3, many, tmp_path / "cut", "resume", kind)[0]
    assert resumed == {key: value for key, value in straight.items() if key in resumed}
    assert {(8, "train/m"), (9, "train/m"), (8, "val/m")} <= {*resumed}


@pytest.mark.parametrize("world_size", [1, 3])
def test_another_number_of_processes_resumes_the_metrics(world_size: int, tmp_path: Path) -> None:
    """The training metrics of step 8 lack the rows of a process that no longer exists, of steps 5 and 6."""
    straight = on_ranks(2, many, tmp_path / "straight", "straight", "MeanSquaredError")[0]
    on_ranks(2, many, tmp_path / "cut", "crash", "MeanSquaredError")
    resumed = on_ranks(world_size, many, tmp_path / "cut", "resume", "MeanSquaredError")[0]
    assert {(8, "train/m"), (9, "train/m"), (8, "val/m")} <= {*resumed}
    expected = {key: value for key, value in straight.items() if key in resumed}
    if world_size == 1:
        assert resumed.pop((8, "train/m")) != expected.pop((8, "train/m"))
    assert resumed == pytest.approx(expected, rel=1e-4)
