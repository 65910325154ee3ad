"""One forward: what hooks may change before it, and what is required of its outputs."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from loopwright import Callback
from loopwright.engine.forward import Forward
from loopwright.engine.weighting import as_outputs
from loopwright.errors import SettingError
from tiny import batches, parts


class Scaled(nn.Module):
    """The mean of a batch, times ``scale``."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, batch: Tensor, scale: float = 1.0) -> Tensor:
        return self.weight * batch.mean() * scale


class Changing(Callback):
    """Gives the model another batch and one more argument."""

    def on_before_forward(self, trainer: Any, model: nn.Module, batch: Any, args: list[Any], kwargs: Any) -> None:
        args[0] = batch + 1
        kwargs["scale"] = 10.0


def test_what_a_hook_puts_into_the_arguments_reaches_the_model() -> None:
    """Catches a model that is called with the batch as it was read."""
    ours = parts(Changing(), model=Scaled())
    forward = Forward(ours, ours.model)
    assert forward(torch.ones(3))["loss"].item() == 20.0


def test_hooks_after_it_are_given_the_outputs_as_a_mapping() -> None:
    """Catches a bare loss that reaches `on_after_forward` without its name, and a hook's entry that is lost."""

    class Adding(Callback):
        def on_after_forward(self, trainer: Any, model: nn.Module, outputs: dict[str, Any], batch: Any) -> None:
            outputs["double"] = outputs["loss"] * 2

    ours = parts(Adding(), model=Scaled())
    assert Forward(ours, ours.model)(torch.ones(3))["double"].item() == 2.0


def test_what_is_called_in_place_of_the_model_need_not_return_a_loss() -> None:
    """Catches a loss that is required of the `predict` of a validation loop; of a model it is."""
    answer: Any = lambda batch: {"accuracy": torch.ones(())}  # noqa: E731
    assert set(Forward(parts(), answer, partial(as_outputs, needs_loss=False))(batches(1)[0])) == {"accuracy"}
    ours = parts()
    ours.model.forward = answer
    with pytest.raises(TypeError, match="the keys accuracy: expected a scalar tensor as loss"):
        Forward(ours, ours.strategy.call)(batches(1)[0])


def test_a_setting_that_the_model_refuses_is_a_setting_of_model() -> None:
    """Catches a message that names ``in_features`` without the group that it is set in."""
    ours = parts()

    def refuse(batch: Any) -> Any:
        raise SettingError("in_features", "=3: expected 4.")

    ours.model.forward = refuse
    with pytest.raises(SettingError, match=r"^model\.in_features=3: expected 4\.$"):
        Forward(ours, ours.strategy.call)(batches(1)[0])
