"""Tests of `NoiseScale`, with models whose noise scale is known or is computed by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import tiny
from loopwright import Callback, Checkpointing, Precision, TrainingLoop
from loopwright.callbacks import NoiseScale
from loopwright.callbacks.noise_scale import signal_and_noise
from loopwright.data import Loader
from loopwright.errors import CheckpointError, SettingError
from ranked import on_ranks

NAMES = ("train/noise_scale", "train/noise_scale_signal", "train/noise_scale_noise")


class Linear(nn.Module):
    """The loss of a row is w . row, so its gradient is the row itself."""

    def __init__(self, num_features: int = 8) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(num_features, dtype=torch.float64))

    def forward(self, batch: tuple[Tensor]) -> Tensor:
        return (batch[0].to(self.weight.dtype) @ self.weight).mean()


def gaussian(num_rows: int) -> TensorDataset:
    """Return rows of 8 numbers with mean 0.5 and deviation 2: the noise scale is 8 * 2**2 / (8 * 0.5**2) = 16."""
    generator = torch.Generator().manual_seed(3)
    return TensorDataset(0.5 + 2 * torch.randn(num_rows, 8, generator=generator, dtype=torch.float64))


def fit(callback: NoiseScale, num_steps: int, accum: int, **settings: Any) -> tiny.Logged:
    logged = tiny.Logged()
    arguments: dict[str, Any] = {"model": Linear, "loggers": [logged], "callbacks": [callback]}
    data = settings.pop("data", None) or Loader(gaussian(6400), batch_size=8, shuffle=True)
    loop = TrainingLoop(num_steps=num_steps, grad_accum_steps=accum)
    ours = tiny.trainer(loop, **{**arguments, **settings})
    ours.fit(data)
    return logged


def measured(rank: int, accum: int, num_steps: int) -> dict[str, float]:
    logged = fit(NoiseScale(every_n_steps=1, decay=0.995), num_steps, accum)
    return {name: logged.metrics[name][num_steps] for name in NAMES} if not rank else {}


def test_a_known_noise_scale_is_found_by_one_process() -> None:
    found = measured(0, 8, 300)
    assert found["train/noise_scale_signal"] == pytest.approx(2.0, rel=0.2)
    assert found["train/noise_scale_noise"] == pytest.approx(32.0, rel=0.1)
    assert found["train/noise_scale"] == pytest.approx(16.0, rel=0.2)


@pytest.mark.slow
def test_a_known_noise_scale_is_found_by_several_processes_without_accumulation() -> None:
    found = on_ranks(3, measured, 1, 600)[0]
    assert found["train/noise_scale_noise"] == pytest.approx(32.0, rel=0.15)
    assert found["train/noise_scale"] == pytest.approx(16.0, rel=0.5)


def by_hand(micro_batches: list[Tensor], smalls: list[Tensor]) -> tuple[float, float]:
    """Return signal and noise from the gradient of all rows, and the mean over the small batches."""
    rows = torch.cat(micro_batches)
    num_small = 1 / (sum(1 / len(each) for each in smalls) / len(smalls))
    small = sum(float(each.mean(0).square().sum()) for each in smalls) / len(smalls)
    return signal_and_noise(small, num_small, float(rows.mean(0).square().sum()), len(rows))


def three_steps(rank: int) -> dict[str, dict[int, float]]:
    """Measure steps 2 and 3. Their last micro-batches have 3 and 3 rows, or 2 and 1 rows in each process of two."""
    data = Loader(gaussian(18), batch_size=3)
    return fit(NoiseScale(every_n_steps=1, decay=0.5), 3, 2, data=data).metrics


def test_the_measurement_is_the_formula_of_the_paper() -> None:
    parts = gaussian(18).tensors[0].split(3)
    for found, split in ((three_steps(0), 1), (on_ranks(2, three_steps)[0], 2)):
        signal = noise = weight = 0.0
        for step in range(3):
            window = [*parts[2 * step : 2 * step + 2]]
            new = by_hand(window, [window[1][rank::split] for rank in range(split)])
            signal, noise, weight = signal / 2 + new[0] / 2, noise / 2 + new[1] / 2, weight / 2 + 0.5
            assert found["train/noise_scale_signal"][step + 1] == pytest.approx(signal / weight, rel=1e-9)
            assert found["train/noise_scale_noise"][step + 1] == pytest.approx(noise / weight, rel=1e-9)
            is_known = signal > 0 and noise > 0
            assert (step + 1 in found.get("train/noise_scale", {})) == is_known


def test_only_every_nth_step_is_measured_and_a_step_of_one_micro_batch_is_left_out() -> None:
    data = Loader(gaussian(9), batch_size=3)  # each second step has only one micro-batch
    logged = fit(NoiseScale(every_n_steps=3), 10, 2, data=data)
    assert [*logged.metrics["train/noise_scale_noise"]] == [3, 9]


@pytest.mark.parametrize("dtype", ["bf16", "fp16", "bf16_pure"])
def test_16_bit_precisions_measure_the_same(dtype: str) -> None:
    exact = fit(NoiseScale(every_n_steps=1), 4, 4)
    precision = Precision(dtype, first_scale=64 if dtype == "fp16" else None)  # no overflow in the first steps
    found = fit(NoiseScale(every_n_steps=1), 4, 4, precision=precision, model=lambda: Linear().float())
    for name in NAMES[1:]:
        assert found.metrics[name][4] == pytest.approx(exact.metrics[name][4], rel=0.05)


def resumed(rank: int, run_dir: Path, how: str) -> dict[str, dict[int, float]]:
    class Stops(Callback):
        def on_train_batch_end(self, trainer: Any, model: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            if how == "cut" and trainer.global_step == 6:
                raise RuntimeError("cut")

    logged = tiny.Logged()
    ours = tiny.trainer(
        TrainingLoop(num_steps=12, grad_accum_steps=2),
        model=Linear,
        callbacks={"noise": NoiseScale(every_n_steps=2), "stops": Stops()},
        loggers=[logged],
        checkpoint=Checkpointing(every_n_steps=4),
        run_dir=run_dir,
    )
    data = Loader(gaussian(48), batch_size=4, shuffle=True)
    if how == "cut":
        with pytest.raises(RuntimeError, match="cut"):
            ours.fit(data)
    else:
        ours.fit(data, ckpt_path="last" if how == "resume" else None)
    return logged.metrics


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_resume_continues_the_averages(world_size: int, tmp_path: Path) -> None:
    straight = on_ranks(world_size, resumed, tmp_path / "straight", "straight")[0]
    on_ranks(world_size, resumed, tmp_path / "cut", "cut")
    after = on_ranks(world_size, resumed, tmp_path / "cut", "resume")[0]
    for name in NAMES[1:]:
        assert after[name] == {step: value for step, value in straight[name].items() if step > 4}
        assert [*after[name]] == [6, 8, 10, 12]


def test_one_micro_batch_a_step_in_one_process_is_refused() -> None:
    expected = (
        r"^loop\.grad_accum_steps=1: expected 2 or more .* several processes \(device\.num_processes=2\), because"
    )
    with pytest.raises(SettingError, match=expected):
        fit(NoiseScale(), 2, 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"every_n_steps": 0}, r"^every_n_steps=0: expected a whole number of steps, 1 or more"),
        ({"decay": 1}, r"^decay=1: expected a number in \[0, 1\)"),
        ({"decay": "high"}, r"^decay='high': expected a number in \[0, 1\)"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NoiseScale(**settings)


def test_a_wrong_state_is_refused() -> None:
    with pytest.raises(CheckpointError, match="signal='x'; expected a number"):
        NoiseScale().load_state_dict({"signal": "x", "noise": 0.0, "weight": 0.0})
