"""Errors of user code in a fit from Python: the original error is raised, with a note that names the place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import faulty
import tiny
from loopwright import TrainingLoop
from loopwright.data import synthetic
from loopwright.errors import DataError, SettingError
from loopwright.models import MLP


def fit(data: Any = None, model: Callable[[], Any] = faulty.Model, **settings: Any) -> None:
    loop = TrainingLoop(num_steps=4, eval_frequency=2, eval_steps=settings.pop("eval_steps", None))
    given = data or faulty.data()
    tiny.trainer(loop, model=model, **settings).fit(given.train, given.val)


@pytest.mark.parametrize(
    ("returns", "after", "notes"),
    [
        ("raises", 0, ["Raised in model Model on the first batch of val, before the first step."]),
        ("raises", 1, ["Raised in model Model in step 2."]),
        ("raises", 2, ["Raised in model Model on val."]),
    ],
)
def test_an_error_of_the_model_names_its_step(returns: str, after: int, notes: list[str]) -> None:
    with pytest.raises(ValueError, match="two\nlines") as caught:
        fit(model=lambda: faulty.Model(returns, after))
    assert caught.value.__notes__ == notes


class Unpacks(faulty.Model):
    """A model for batches that are pairs."""

    def forward(self, batch: Any) -> Any:
        image, _label = batch
        return nn.functional.linear(image, self.weight)


def test_an_error_about_the_batch_says_what_the_batch_contains() -> None:
    with pytest.raises(TypeError, match="must be Tensor, not str") as caught:
        fit(synthetic(num_train=8, num_val=4, batch_size=4), model=Unpacks)
    where = "on the first batch of val, before the first step"
    notes = [f"Raised in model Unpacks {where}.", "The batch is a mapping with image, label."]
    assert caught.value.__notes__ == notes


class Indexes(faulty.Model):
    """A model for batches that are mappings."""

    def forward(self, batch: Any) -> Any:
        return batch["image"].mean()


def test_an_error_about_a_batch_of_tensors_says_how_many() -> None:
    with pytest.raises(TypeError, match="list indices must be integers") as caught:
        tiny.trainer(TrainingLoop(num_steps=1), model=Indexes).fit([[torch.ones(2), torch.ones(2)]])
    remedy = "for a module that takes only a part of it, use loopwright.models.Supervised(net, loss)"
    assert caught.value.__notes__ == ["Raised in model Indexes in step 1.", f"The batch is a list of 2: {remedy}."]


class OneWay(faulty.Model):
    """A model whose backward pass fails."""

    def forward(self, batch: Any) -> Any:
        loss = super().forward(batch)
        loss.register_hook(_fail)
        return loss


def _fail(gradient: Tensor) -> Tensor:
    raise KeyError(f"gone: {gradient.shape}")


@pytest.mark.parametrize("grad_accum_steps", [1, 2])
def test_an_error_of_the_backward_names_its_step(grad_accum_steps: int) -> None:
    loop = TrainingLoop(num_steps=2, grad_accum_steps=grad_accum_steps)
    with pytest.raises(KeyError, match="gone") as caught:
        tiny.trainer(loop, model=OneWay).fit(faulty.data().train)
    assert caught.value.__notes__ == ["Raised in the backward of model OneWay in step 1."]


@pytest.mark.parametrize(
    ("settings", "note"),
    [
        ({"kind": "own", "fault": "raises"}, "Raised by the training dataloader at micro-batch 1 of pass 0."),
        ({"kind": "own", "val_fault": "raises"}, "Raised by the dataloader of val at batch 1."),
    ],
)
def test_an_error_of_a_dataloader_of_another_class_names_its_place(settings: dict[str, Any], note: str) -> None:
    with pytest.raises(KeyError, match="no such row") as caught:
        fit(faulty.data(**settings))
    assert caught.value.__notes__ == [note]


@pytest.mark.parametrize("settings", [{"fault": "kills"}, {"val_fault": "kills"}, {"kind": "own", "fault": "kills"}])
def test_a_killed_worker_is_reported_and_no_process_is_left(
    settings: dict[str, Any], num_workers_left: Callable[[], int]
) -> None:
    with pytest.raises(
        DataError, match=r"^A worker process of a dataloader died, possibly because memory ran out. Use fewer"
    ) as caught:
        fit(faulty.data(num_workers=1, **settings))
    assert caught.value.__cause__ is not None
    del caught
    assert num_workers_left() == 0


def test_a_model_that_does_not_fit_its_data_names_the_setting() -> None:
    with pytest.raises(SettingError, match=r"^model\.in_features=63: expected 64, the number of values in a sample\.$"):
        fit(model=lambda: MLP(in_features=63), data=synthetic(num_train=8, num_val=4))


def test_a_model_without_parameters_is_refused() -> None:
    with pytest.raises(SettingError, match=r"^model=Empty\(…\): expected parameters to be trained; it has none\.$"):
        fit(model=faulty.Empty)
