"""Tests of `Utilisation` and of the table of peaks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import tiny
from loopwright import TrainingLoop
from loopwright.callbacks import Utilisation
from loopwright.callbacks.peak_flops import peak_flops_of
from loopwright.errors import SettingError


class Slow(tiny.Regression):
    """Takes 2 seconds for each micro-batch."""

    def __init__(self, now: list[float]) -> None:
        super().__init__()
        self.now = now

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        self.now[0] += 2.0
        return super().forward(batch)


def timing(callback: Utilisation, now: list[float]) -> dict[str, dict[int, float]]:
    """Train on 18 samples in micro-batches of 4."""
    logged = tiny.Logged()
    features, target = tiny.rows(18).tensors
    data = list(zip(features.split(4), target.split(4), strict=True))
    ours = tiny.trainer(
        TrainingLoop(num_epochs=1),
        model=lambda: Slow(now),
        callbacks=[callback],
        loggers=[logged],
        log_every_n_steps=2,
    )
    ours.fit(data)
    return logged.timing


def test_the_rate_counts_the_samples_of_all_micro_batches_without_the_time_of_the_count(now: list[float]) -> None:
    """A sample of the tiny model needs 176 FLOPs. The last micro-batch has 2 samples."""
    found = timing(Utilisation(peak_flops=1e3), now)
    rates = {2: 176 * 8 / 4, 4: 176 * 8 / 4, 5: 176 * 2 / 2}
    assert found["train/teraflops_per_second"] == pytest.approx({step: rate / 1e12 for step, rate in rates.items()})
    assert found["train/flops_utilisation_fraction"] == pytest.approx(
        {step: rate / 1e3 for step, rate in rates.items()}
    )


def test_an_unknown_device_is_reported_once_and_logs_only_the_rate(
    now: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    callback = Utilisation()
    for _ in range(2):
        assert "train/flops_utilisation_fraction" not in timing(callback, now)
    warnings = [record.message for record in caplog.records if "Utilisation" in record.message]
    assert len(warnings) == 1 and "the peak FLOP/s of cpu in float32 are not known" in warnings[0]


@pytest.mark.parametrize(
    ("name", "dtype", "peak"),
    [
        ("NVIDIA H200", torch.bfloat16, 989.4e12),
        ("NVIDIA H200 NVL", torch.bfloat16, 835.5e12),
        ("NVIDIA H100 80GB HBM3", torch.float16, 989.4e12),
        ("NVIDIA H100 PCIe", torch.float32, 51e12),
        ("NVIDIA A100-SXM4-40GB", torch.float32, 19.5e12),
        ("NVIDIA GeForce RTX 4090", torch.bfloat16, 165.2e12),
        ("Tesla V100-SXM2-32GB", torch.bfloat16, None),
        ("NVIDIA L40S", torch.bfloat16, 362e12),
        ("NVIDIA L4", torch.bfloat16, 121e12),
        ("NVIDIA A10G", torch.bfloat16, None),
        ("NVIDIA H200", torch.float64, None),
        ("cpu", torch.float32, None),
    ],
)
def test_peaks_by_device_and_dtype(name: str, dtype: torch.dtype, peak: float | None) -> None:
    assert peak_flops_of(name, dtype) == peak


def test_float32_has_the_peak_of_tf32_where_torch_may_use_it() -> None:
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        assert peak_flops_of("NVIDIA A100-SXM4-80GB", torch.float32) == 156e12
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("peak", [0, -1.0, float("nan"), float("inf"), True, "989e12"])
def test_a_peak_that_is_no_positive_number_is_refused(peak: object) -> None:
    with pytest.raises(SettingError, match="peak_flops"):
        Utilisation(peak)  # type: ignore[arg-type]
