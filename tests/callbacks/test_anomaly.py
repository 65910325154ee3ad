"""Tests of `DetectAnomaly`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from loopwright import TrainingLoop
from loopwright.callbacks import DetectAnomaly
from tiny import Recorder, Regression, batches, is_bitwise_equal, trainer, weights


class Broken(Regression):
    """A model whose loss, the square root of 0 times its error, has a NaN gradient."""

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        outputs = super().forward(batch)
        return outputs | {"loss": (outputs["loss"] * 0).sqrt()}


def test_anomaly_mode_is_on_only_during_the_fit_and_does_not_change_the_weights() -> None:
    seen: list[bool] = []
    record: Any = Recorder(lambda *_: seen.append(torch.is_anomaly_enabled()))
    ours = trainer(TrainingLoop(num_steps=3), callbacks=[DetectAnomaly(), record])
    ours.fit(batches(3))
    assert seen == [True] * 3 and not torch.is_anomaly_enabled()
    plain = trainer(TrainingLoop(num_steps=3))
    plain.fit(batches(3))
    assert is_bitwise_equal(weights(ours), weights(plain))


@pytest.mark.filterwarnings("ignore:Error detected in")
def test_a_nan_in_the_backward_pass_ends_the_run_and_names_the_operation() -> None:
    with pytest.raises(RuntimeError, match="MulBackward0"):
        trainer(TrainingLoop(num_steps=3), model=Broken, callbacks=[DetectAnomaly()]).fit(batches(3))
    assert not torch.is_anomaly_enabled()
