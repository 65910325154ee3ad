"""``Device(matmul=…)``: the precision is set during fits, validations and predictions, and restored afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

import tiny
from loopwright import TrainingLoop
from loopwright.device import Device
from loopwright.errors import SettingError


@pytest.fixture
def high() -> Iterator[None]:
    """Set the precision of the process to "high" for a test."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    yield
    torch.set_float32_matmul_precision(before)


class Noting(nn.Module):
    """Notes the precision in each forward."""

    def __init__(self, fails: bool = False) -> None:
        super().__init__()
        self.layer, self.found, self.fails = nn.Linear(4, 1), set[str](), fails

    def forward(self, batch: Any) -> dict[str, Any]:
        self.found.add(torch.get_float32_matmul_precision())
        if self.fails:
            raise RuntimeError("on purpose")
        out = self.layer(batch[0])
        return {"loss": out.mean(), "out": out}


@pytest.mark.parametrize(("matmul", "expected"), [("medium", "medium"), (None, "high")])
def test_it_is_applied_and_restored(high: None, matmul: str | None, expected: str) -> None:
    ours = tiny.trainer(TrainingLoop(num_steps=2), model=Noting, device=Device("cpu", matmul=matmul))
    data = tiny.batches(2)
    for call in (
        lambda: ours.fit(data, data),
        lambda: ours.validate(data),
        lambda: ours.validate_all(data),
        lambda: ours.predict(data),
    ):
        ours.model.found.clear()
        call()
        assert ours.model.found == {expected} and torch.get_float32_matmul_precision() == "high"


def test_it_is_restored_after_an_error(high: None) -> None:
    ours = tiny.trainer(model=lambda: Noting(fails=True), device=Device("cpu", matmul="highest"))
    with pytest.raises(RuntimeError, match="on purpose"):
        ours.fit(tiny.batches(5))
    assert ours.model.found == {"highest"} and torch.get_float32_matmul_precision() == "high"


def test_a_wrong_value_is_refused() -> None:
    with pytest.raises(SettingError, match=r"matmul='hihg': expected highest, high, medium or null. Did you mean high"):
        Device(matmul="hihg")
