"""Training in each precision equals a hand-written loop, resumes bitwise, and skips updates that overflow."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import tiny
from loopwright import Callback, Checkpointing, Precision, Trainer, TrainingLoop
from loopwright.callbacks import ExponentialMovingAverage, StopOnNonFinite
from loopwright.errors import NonFiniteError, SettingError
from loopwright.seeding import RandomStreams

DTYPES = ["float32", "bf16", "fp16", "bf16_pure"]
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Classifier(nn.Module):
    """Two linear layers and a cross entropy; the label is the sign of the target."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 2))

    def forward(self, batch: Any) -> dict[str, Any]:
        features, target = batch
        logits = self.layers(features)
        return {"loss": nn.functional.cross_entropy(logits, (target[:, 0] > 0).long()), "logits": logits}


def by_hand(dtype: str, num_steps: int, clip: float | None) -> dict[str, torch.Tensor]:
    """Train on one micro-batch a step, in the way of PyTorch's documentation of automatic mixed precision."""
    with RandomStreams(0).active():
        model = Classifier()
        if dtype == "bf16_pure":
            model.bfloat16()
        optimizer = tiny.adamw(model.parameters())
        scaler = torch.amp.GradScaler("cpu", enabled=dtype == "fp16")
        data = tiny.batches(8)
        for step in range(num_steps):
            features, target = data[step % 8]
            if dtype == "bf16_pure":
                features, target = features.bfloat16(), target.bfloat16()
            with torch.autocast("cpu", dtype=HALF.get(dtype, torch.bfloat16), enabled=dtype in HALF):
                loss = model((features, target))["loss"]
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            if clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
    return tiny.weights(model)


@pytest.mark.parametrize("clip", [None, 0.1])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_weights_equal_those_of_a_hand_written_loop(dtype: str, clip: float | None) -> None:
    precision = Precision(dtype, max_gradient_norm=clip)
    with tiny.trainer(
        TrainingLoop(num_steps=12), model=Classifier, optimizer=tiny.adamw, precision=precision
    ) as trainer:
        trainer.fit(tiny.batches(8))
        assert tiny.is_bitwise_equal(tiny.weights(trainer), by_hand(dtype, 12, clip))


@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_have_the_dtype_and_the_forward_computes_in_it(dtype: str) -> None:
    seen: list[torch.dtype] = []

    class Logits(Callback):
        def on_after_forward(self, trainer: Trainer, model: Any, outputs: Any, batch: Any) -> None:
            seen.append(outputs["logits"].dtype)

    with tiny.trainer(
        TrainingLoop(num_steps=1), model=Classifier, precision=dtype, callbacks=[Logits()]
    ) as trainer:  # fmt: skip
        trainer.fit(tiny.batches(), tiny.batches(1))
        weights = {each.dtype for each in trainer.model.parameters()}
        predicted = trainer.predict(tiny.batches(1))["logits"]
    expected = {"float32": torch.float32, "bf16_pure": torch.bfloat16, **HALF}[dtype]
    assert set(seen) == {expected}
    assert weights == {torch.bfloat16 if dtype == "bf16_pure" else torch.float32}
    assert predicted.shape == (4, 2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("grad_accum_steps", [1, 3])
def test_a_resume_is_bitwise_a_straight_run(dtype: str, grad_accum_steps: int, tmp_path: Path) -> None:
    growing = {"growth_every_n_steps": 2} if dtype == "fp16" else {}
    precision = Precision(dtype, **growing)
    loop = TrainingLoop(num_steps=10, grad_accum_steps=grad_accum_steps, eval_frequency=5)
    settings: dict[str, Any] = {
        "model": Classifier,
        "optimizer": tiny.adamw,
        "precision": precision,
        "checkpoint": Checkpointing(every_n_steps=1),
    }
    ends = []
    for name in ("straight", "resumed"):
        with tiny.trainer(
            loop, run_dir=tmp_path / name, callbacks=[ExponentialMovingAverage(0.9)], **settings
        ) as trainer:
            start = None if name == "straight" else tmp_path / "straight" / "checkpoints" / "step_00000003"
            result = trainer.fit(tiny.batches(8), tiny.batches(2), ckpt_path=start)
            files = tmp_path / name / "checkpoints" / "step_00000010"
            ends.append(
                (result.metrics, (files / "model.safetensors").read_bytes(), (files / "state.json").read_text())
            )
    assert ends[0][:2] == ends[1][:2]
    assert ends[0][2] == ends[1][2]


def test_another_precision_is_refused_on_a_resume(tmp_path: Path) -> None:
    with tiny.trainer(checkpoint=Checkpointing(), run_dir=tmp_path) as trainer:
        trainer.fit(tiny.batches())
    with tiny.trainer(TrainingLoop(num_steps=9), precision="bf16", run_dir=tmp_path / "b") as trainer:
        with pytest.raises(SettingError, match="precision: float32 -> bf16"):
            trainer.fit(tiny.batches(), ckpt_path=tmp_path)


class Overflowing(Classifier):
    """Has an infinite gradient and a finite loss in some steps."""

    def __init__(self, steps: Callable[[int], bool]) -> None:
        super().__init__()
        self.num_forwards, self.steps = 0, steps

    def forward(self, batch: Any) -> dict[str, Any]:
        outputs = super().forward(batch)
        if self.training:
            self.num_forwards += 1
            if self.steps(self.num_forwards):
                outputs["loss"].register_hook(lambda gradient: gradient * float("inf"))
        return outputs


def test_an_overflow_skips_the_update_and_the_schedule_but_not_the_step(tmp_path: Path) -> None:
    rates: list[float] = []
    updates: list[int] = []

    class Rates(Callback):
        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            rates.append(trainer.optimizer.param_groups[0]["lr"])  # type: ignore[union-attr]

        def on_after_optimizer_step(self, trainer: Trainer, *_: Any) -> None:
            updates.append(trainer.global_step + 1)

    with tiny.trainer(
        TrainingLoop(num_steps=6),
        model=lambda: Overflowing(lambda number: number == 3),
        precision="fp16",
        schedulers=[partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.5)],
        callbacks=[Rates(), StopOnNonFinite(every_step=True)],
        checkpoint=Checkpointing(),
        log_every_n_steps=1,
        run_dir=tmp_path,
    ) as trainer:
        result = trainer.fit(tiny.batches())
    assert updates == [1, 2, 4, 5, 6]
    assert rates[2] == rates[1] and rates[3] == rates[2] / 2
    assert (result.global_step, result.metrics["train/skipped_updates"]) == (6, 1)


def test_twenty_overflows_in_a_row_end_the_run() -> None:
    with tiny.trainer(
        TrainingLoop(num_steps=40), model=lambda: Overflowing(lambda number: number > 3), precision="fp16"
    ) as trainer, pytest.raises(NonFiniteError, match="not finite in 20 steps in a row"):  # fmt: skip
        trainer.fit(tiny.batches())
    assert trainer.global_step == 22


def test_the_first_scale_follows_the_items_of_a_step() -> None:
    class Tokens(tiny.Regression):
        def forward(self, batch: Any) -> dict[str, Any]:
            return {**super().forward(batch), "num_items": 2**24}

    skipped = []
    for first_scale in (None, 65536.0):
        loop = TrainingLoop(num_steps=19, grad_accum_steps=2)
        with tiny.trainer(loop, model=Tokens, precision=Precision("fp16", first_scale=first_scale)) as trainer:
            skipped.append(trainer.fit(tiny.batches(8)).metrics["train/skipped_updates"])
    # The scale is halved until the gradients fit; a scale that does not know of the 2**24 items begins 2**24 too high.
    assert skipped[0] <= 2 and skipped[1] == 19


@pytest.mark.parametrize("dtype", ["bf16", "fp16", "bf16_pure"])
def test_a_validation_uses_the_average_and_restores_the_weights(dtype: str, tmp_path: Path) -> None:
    average = ExponentialMovingAverage(decay=0.999)
    with tiny.trainer(
        TrainingLoop(num_steps=30),
        model=Classifier,
        optimizer=tiny.adamw,
        precision=dtype,
        callbacks=[average],
        checkpoint=Checkpointing(),
        run_dir=tmp_path,
    ) as trainer:
        start = {name: each.clone() for name, each in tiny.weights(trainer).items()}
        trainer.fit(tiny.batches(8))
        before = {name: each.clone() for name, each in tiny.weights(trainer).items()}
        kept = {name: each.clone() for name, each in average.state_dict()["averaged_weights"].items()}
        assert {each.dtype for each in kept.values()} == {torch.float32}
        # The average has moved, although each of its updates is below the resolution of bfloat16.
        assert all((kept[name] - start[name].float()).abs().max() > 0 for name in kept)
        live = trainer.validate(tiny.batches(2))
        assert tiny.is_bitwise_equal(tiny.weights(trainer), before)
        assert tiny.is_bitwise_equal(average.state_dict()["averaged_weights"], kept)
        assert trainer.validate(tiny.batches(2), ckpt_path="last") == live
    with tiny.trainer(model=Classifier, precision=dtype, callbacks=[], run_dir=None) as trainer:
        assert trainer.validate(tiny.batches(2), ckpt_path=tmp_path) != live  # the trained weights


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("bf17", "precision='bf17': expected float32, bf16, fp16 or bf16_pure. Did you mean bf16?"),
        ("bf16-mixed", "precision='bf16-mixed': expected float32, bf16, fp16 or bf16_pure. Did you mean bf16?"),
        (16, "precision=16: expected a Precision, or a dtype such as 'bf16'."),
    ],
)
def test_an_unknown_precision_is_refused(given: Any, text: str) -> None:
    with pytest.raises(SettingError) as caught:
        tiny.trainer(precision=given)
    assert str(caught.value) == text
