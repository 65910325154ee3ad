"""Tests of `StopOnNonFinite`: losses, gradients, weights and buffers that are NaN or infinite."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim.lr_scheduler import StepLR
from torch.profiler import ProfilerActivity, profile

import tiny
from loopwright import Callback, Checkpointing, Logger, TrainingLoop
from loopwright.callbacks import StopOnNonFinite
from loopwright.checkpoint import read_checkpoint
from loopwright.errors import NonFiniteError


def spoilt(at: set[int], value: float = math.nan, num_batches: int = 20) -> list[tuple[Tensor, Tensor]]:
    """Return batches; those with an index in ``at`` contain ``value`` in one row."""
    batches = [(features.clone(), target) for features, target in tiny.batches(num_batches)]
    for index in at:
        batches[index][0][1, 2] = value
    return batches


def fit(callback: StopOnNonFinite, batches: Any, **settings: Any) -> Any:
    trainer = tiny.trainer(TrainingLoop(num_epochs=1), callbacks=[callback], **settings)
    trainer.fit(batches)
    return trainer


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("step", [1, 2, 7, 20])
def test_with_every_step_the_fit_ends_before_the_update(value: float, step: int) -> None:
    trainer = tiny.trainer(TrainingLoop(num_epochs=1), callbacks=[StopOnNonFinite(every_step=True)])
    with pytest.raises(NonFiniteError, match=rf"in step {step} \(learning rate 0\.05\)\. Last good checkpoint: none"):
        trainer.fit(spoilt({step - 1}, value))
    sound = tiny.trainer(TrainingLoop(num_steps=step - 1)) if step > 1 else tiny.trainer()
    if step > 1:
        sound.fit(tiny.batches(20))
    assert tiny.is_bitwise_equal(tiny.weights(trainer), tiny.weights(sound))
    assert trainer.global_step == step - 1


def test_by_default_the_first_step_and_log_steps_are_checked() -> None:
    with pytest.raises(NonFiniteError, match=r"The loss is nan in step 1 .* divisions by 0"):
        fit(StopOnNonFinite(), spoilt({0}))
    with pytest.raises(NonFiniteError, match=r"in step 10 .* precision\.max_gradient_norm"):
        fit(StopOnNonFinite(), spoilt({5}), log_every_n_steps=10)


def test_the_loss_of_every_micro_batch_of_a_step_is_checked() -> None:
    trainer = tiny.trainer(TrainingLoop(num_epochs=1, grad_accum_steps=3), callbacks=[StopOnNonFinite(every_step=True)])
    with pytest.raises(NonFiniteError, match="in step 2 "):
        trainer.fit(spoilt({3}))


class InfiniteGradient(tiny.Regression):
    """A model with a loss of 0 whose gradient is not finite."""

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        return {"loss": (self.layers(batch[0]) * 0).abs().sqrt().mean()}


def test_gradients_are_checked_even_if_the_loss_is_finite() -> None:
    with pytest.raises(NonFiniteError, match="The gradient is not finite in step 1 "):
        fit(StopOnNonFinite(), tiny.batches(), model=InfiniteGradient)


class Spoiling(Callback):
    """Makes a weight infinite after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Any, model: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step:
            with torch.no_grad():
                next(model.parameters())[0, 0] = math.inf


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    trainer = tiny.trainer(
        TrainingLoop(num_epochs=1),
        callbacks=[Spoiling(5), StopOnNonFinite()],
        checkpoint=Checkpointing(every_n_steps=3),
        run_dir=tmp_path,
    )
    last = tmp_path / "checkpoints" / "step_00000003"
    with pytest.raises(
        NonFiniteError,
        match=rf"not finite after step 6 \(learning rate 0\.05\); they are not saved\. Last good .*: {last};",
    ):
        trainer.fit(tiny.batches(20))
    assert [folder.name for folder in (tmp_path / "checkpoints").iterdir()] == ["step_00000003"]
    weights = read_checkpoint(last, weights_only=True).state["model"]
    assert all(bool(tensor.isfinite().all()) for tensor in weights.values())


class Normed(tiny.Regression):
    """A model with a batch norm and a constant mask of -infinity."""

    def __init__(self) -> None:
        super().__init__()
        self.layers.insert(1, torch.nn.BatchNorm1d(8))
        self.register_buffer("mask", torch.full((2, 2), -math.inf))


def test_a_buffer_that_is_no_longer_finite_is_never_saved(tmp_path: Path) -> None:
    def spoil(trainer: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == 5:
            trainer.model.layers[1].running_mean[0] = math.nan

    trainer = tiny.trainer(
        TrainingLoop(num_epochs=1),
        model=Normed,
        callbacks=[tiny.Recorder(spoil), StopOnNonFinite()],
        checkpoint=Checkpointing(every_n_steps=3),
        run_dir=tmp_path,
    )
    with pytest.raises(
        NonFiniteError, match=r"^The buffers are not finite after step 6 \(learning rate 0\.05\); they "
    ):
        trainer.fit(tiny.batches(20))
    assert [folder.name for folder in (tmp_path / "checkpoints").iterdir()] == ["step_00000003"]


class Replacing(Normed):
    """A model whose forward replaces a buffer by another tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        self.seen = self.seen + batch[0].detach().sum()
        return super().forward(batch)


class Seen(Logger):
    def __init__(self) -> None:
        self.values: dict[int, float] = {}

    def log_metrics(self, metrics: Any, step: int) -> None:
        if "train/skipped_updates" in metrics:
            self.values[step] = metrics["train/skipped_updates"]


@pytest.mark.parametrize("model", [tiny.Regression, Normed])
def test_skipped_updates_change_nothing_and_are_counted(model: Any) -> None:
    seen = Seen()
    settings = {"model": model, "optimizer": tiny.adamw, "schedulers": partial(StepLR, step_size=3)}
    skipping = fit(StopOnNonFinite(every_step=True, skip=2), spoilt({3, 4, 9}), loggers=[seen], **settings)
    assert seen.values == {4: 1, 5: 2, 10: 3}
    assert skipping.global_step == 20
    sound = [batch for index, batch in enumerate(tiny.batches(20)) if index not in (3, 4, 9)]
    without = fit(StopOnNonFinite(), sound, **settings)
    assert tiny.is_bitwise_equal(tiny.weights(skipping), tiny.weights(without))


def test_a_skipped_step_restores_buffers_that_its_first_micro_batch_changed() -> None:
    loop = TrainingLoop(num_epochs=1, grad_accum_steps=2)
    stop = StopOnNonFinite(every_step=True, skip=1)
    skipping = tiny.trainer(loop, model=Replacing, callbacks=[stop])
    skipping.fit(spoilt({5}))
    without = tiny.trainer(loop, model=Replacing)
    without.fit([batch for index, batch in enumerate(tiny.batches(20)) if index not in (4, 5)])
    assert tiny.is_bitwise_equal(tiny.weights(skipping), tiny.weights(without))


def test_more_skipped_updates_in_a_row_than_allowed_end_the_fit() -> None:
    with pytest.raises(NonFiniteError, match=r"in step 6, 3 steps in a row \("):
        fit(StopOnNonFinite(every_step=True, skip=2), spoilt({0, 3, 4, 5}))


def test_a_resume_continues_counting_skipped_updates(tmp_path: Path) -> None:
    def make(num_steps: int, name: str) -> Any:
        return tiny.trainer(
            TrainingLoop(max_steps=num_steps),
            callbacks=[StopOnNonFinite(every_step=True, skip=2)],
            checkpoint=Checkpointing(),
            run_dir=tmp_path / name,
        )

    make(5, "begun").fit(spoilt({3, 4, 5}))
    with pytest.raises(NonFiniteError, match="in step 6, 3 steps in a row"):
        make(20, "resumed").fit(spoilt({3, 4, 5}), ckpt_path=tmp_path / "begun")


def test_no_norm_is_computed_except_at_the_start_the_first_step_and_at_log_steps() -> None:
    trainer = tiny.trainer(TrainingLoop(num_steps=30), callbacks=[StopOnNonFinite()], log_every_n_steps=10)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        trainer.fit(tiny.batches(30))
    norms = sum(event.count for event in profiler.key_averages() if event.key == "aten::_foreach_norm")
    assert norms == 5  # at the start, and in steps 1, 10, 20 and 30


def test_the_number_of_skipped_updates_is_kept_by_a_resume(tmp_path: Path) -> None:
    def fit_to(max_steps: int, name: str, ckpt_path: Path | None = None) -> Any:
        ours = tiny.trainer(
            TrainingLoop(max_steps=max_steps),
            callbacks=[StopOnNonFinite(every_step=True, skip=2)],
            checkpoint=Checkpointing(),
            run_dir=tmp_path / name,
        )
        ours.fit(spoilt({1, 7}), ckpt_path=ckpt_path)
        return ours

    fit_to(5, "begun")
    assert fit_to(10, "resumed", tmp_path / "begun").metrics["train/skipped_updates"] == 2


def test_a_parameter_that_begins_infinite_is_saved(tmp_path: Path) -> None:
    class Masked(tiny.Regression):
        def __init__(self) -> None:
            super().__init__()
            self.layers[-1].mask = torch.nn.Parameter(torch.full((2,), -math.inf), requires_grad=False)

    settings = {"model": Masked, "callbacks": [StopOnNonFinite()], "checkpoint": Checkpointing()}
    assert tiny.trainer(run_dir=tmp_path, **settings).fit(tiny.batches()).state == "completed"
    with pytest.raises(NonFiniteError, match=r"^The weights are not finite after step 5 "):
        tiny.trainer(run_dir=tmp_path / "spoilt", **(settings | {"callbacks": [StopOnNonFinite(), Spoiling(5)]})).fit(
            tiny.batches()
        )


class MaskedMean(torch.nn.Module):
    """A mean over the rows that are not masked: NaN if there are none."""

    def __init__(self, count: Any) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)
        self.count = count

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Any]:
        features, mask = batch
        errors = self.layer(features).squeeze(1).square()
        return {"loss": (errors * mask).sum() / mask.sum(), "num_items": self.count(mask.sum())}


@pytest.mark.parametrize("grad_accum_steps", [1, 2])
def test_a_step_without_items_is_skipped_and_an_int_and_a_tensor_count_alike(grad_accum_steps: int) -> None:
    """The loss of a micro-batch without items is NaN, and is not checked."""
    masks = [torch.tensor([1.0, 0, 1]), torch.zeros(3), torch.ones(3), torch.zeros(3), torch.zeros(3), torch.zeros(3)]
    data = [(torch.randn(3, 4, generator=torch.Generator().manual_seed(index)), m) for index, m in enumerate(masks)]
    results = []
    for count in (int, Tensor.detach):
        stop = StopOnNonFinite(every_step=True)
        loop = TrainingLoop(num_epochs=1, grad_accum_steps=grad_accum_steps)
        ours = tiny.trainer(loop, model=partial(MaskedMean, count), callbacks=[stop], log_every_n_steps=1)
        ours.fit(data, {"val": data})
        results.append((tiny.weights(ours), ours.metrics, ours.global_step))
    assert tiny.is_bitwise_equal(results[0][0], results[1][0]) and results[0][1:] == results[1][1:]
    assert all(tensor.isfinite().all() for tensor in results[0][0].values())
    assert results[0][1]["train/skipped_updates"] == (4 if grad_accum_steps == 1 else 1)
    assert all(map(math.isfinite, results[0][1].values()))


def test_a_callback_skips_an_update_only_before_it() -> None:
    class Skipping(Callback):
        def on_before_optimizer_step(self, trainer: Any, model: Any, optimizer: Any) -> None:
            trainer.skip_update()

    class Late(Callback):
        def on_after_optimizer_step(self, trainer: Any, model: Any, optimizer: Any) -> None:
            trainer.skip_update()

    ours = tiny.trainer(callbacks=[Skipping()])
    before = tiny.weights(ours)
    ours.fit(tiny.batches())
    assert tiny.is_bitwise_equal(before, tiny.weights(ours)) and ours.metrics["train/skipped_updates"] == 5
    with pytest.raises(RuntimeError, match=r"^skip_update: expected a call inside a step, before its update\."):
        tiny.trainer(callbacks=[Late()]).fit(tiny.batches())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"every_step": 1}, r"^every_step=1: expected true or false\.$"),
        ({"skip": -1}, r"^skip=-1: expected a whole number, 0 or more\.$"),
        ({"skip": True}, r"^skip=True: expected a whole number, 0 or more\.$"),
        ({"skip": 2}, r"^skip=2: expected 0, because every_step is false; set every_step=true\.$"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StopOnNonFinite(**settings)
