"""Outputs of a model: the loss, the number of items, and averages that are weighted by them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from loopwright.engine.weighting import WeightedMean, as_outputs, num_items, read_back, scalars
from loopwright.errors import DataError

ONE = torch.ones(())
PAIR = torch.ones(2)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, "None: expected its loss, a scalar tensor"),
        ((ONE,), "an object of class tuple: expected its loss"),
        ({"logits": PAIR}, "the keys logits: expected a scalar tensor as loss"),
        ({"los": ONE}, "the keys los: .*; rename los to loss"),
        ({}, "an empty mapping: expected a scalar tensor as loss"),
        (
            {"loss": 0.5},
            r"loss of class float: expected .*; return the tensor itself, without item\(\)",
        ),
        ({"loss": "0.5"}, r"loss of class str: expected a scalar tensor as loss\."),
        (PAIR, r"shape \(2,\): expected a scalar; take its mean"),
        ({"loss": PAIR}, r"shape \(2,\): expected a scalar; take its mean"),
    ],
)
def test_outputs_without_a_scalar_loss_are_refused(returned: Any, message: str) -> None:
    """Catches an error of torch's, or of a missing key, in place of what the model should return."""
    with pytest.raises(TypeError, match=f"^The model returned .*{message}"):
        as_outputs(returned)


def test_a_bare_loss_and_any_mapping_become_a_dict() -> None:
    """Catches outputs of a mapping class that hooks cannot write to."""

    class Output(dict[str, Any]):
        """A mapping as model libraries return it."""

    assert as_outputs(ONE) == {"loss": ONE}
    assert type(as_outputs(Output(loss=ONE))) is dict


@dataclass
class Batch:
    """A batch class of the user."""

    texts: list[str]
    tokens: Tensor


@pytest.mark.parametrize(
    ("outputs", "batch", "expected"),
    [
        ({}, torch.zeros(3, 2), 3),
        ({}, {"ids": ["a"], "x": (torch.zeros(4), PAIR)}, 4),
        ({}, Batch(["a"], torch.zeros(5, 1)), 5),
        ({"num_items": 7}, PAIR, 7),
        ({"num_items": 0}, PAIR, 0),
        ({"num_items": torch.tensor(6.0, requires_grad=True)}, PAIR, 6),
    ],
)
def test_items_are_the_models_count_or_else_the_samples(outputs: Any, batch: Any, expected: int) -> None:
    """Catches a weight that is taken from another tensor of the batch, and a count that keeps a graph alive."""
    found = num_items(outputs, batch)
    assert int(found) == expected
    assert not isinstance(found, Tensor) or not found.requires_grad


@pytest.mark.parametrize("given", [2.5, "5", True, -1, torch.tensor([5])])
def test_a_number_of_items_that_is_no_count_is_refused(given: Any) -> None:
    """Catches a weight of True, or a negative one."""
    with pytest.raises(TypeError, match=r"returned num_items=.*a whole number, 0 or more, or a scalar tensor"):
        num_items({"num_items": given}, PAIR)


@pytest.mark.parametrize("batch", [["text"], "text", ONE, None, Batch])
def test_items_that_cannot_be_counted_are_asked_for(batch: Any) -> None:
    """Catches a batch of unknown size that counts as one."""
    with pytest.raises(DataError, match="batch has no tensor whose first dimension is the number of samples"):
        num_items({}, batch)


def test_metrics_are_the_scalars_without_the_number_of_items() -> None:
    """Catches logits that are logged, an average of ``num_items``, and a metric that keeps a graph alive."""
    outputs = {"loss": ONE.clone().requires_grad_(), "rate": 0.5, "num_items": 3, "logits": PAIR, "name": "x"}
    found = scalars(outputs)
    assert set(found) == {"loss", "rate"}
    loss = found["loss"]
    assert isinstance(loss, Tensor) and not loss.requires_grad


def test_values_are_read_back_in_their_order_and_without_rounding() -> None:
    """Catches values that change their names, and a float64 that is read as a float32."""
    values = {"a": torch.tensor(1 / 3, dtype=torch.float64), "b": 2, "c": torch.tensor(True)}
    assert list(read_back(values).items()) == [("a", 1 / 3), ("b", 2.0), ("c", 1.0)]


@pytest.mark.parametrize("value", [torch.ones(1), ONE + 0j])
def test_a_value_that_is_no_real_scalar_is_named(value: Tensor) -> None:
    """Catches an error of `torch.stack` that names no metric."""
    with pytest.raises(TypeError, match=r"^a is a tensor of shape .*: expected a real scalar to be logged"):
        read_back({"a": value, "b": ONE})


@pytest.mark.parametrize("is_on_device", [True, False])
def test_a_batch_without_items_changes_no_average(is_on_device: bool) -> None:
    """Catches a NaN, the mean over no items, that makes the whole average NaN."""
    mean = WeightedMean(torch.float64)
    for value, weight in ((3.0, 1), (math.nan, 0), (1.0, 3)):
        mean.add({"loss": torch.tensor(value)}, torch.tensor(weight) if is_on_device else weight)
    assert mean.result() == {"loss": 1.5}
    empty = WeightedMean(torch.float64)
    empty.add({"loss": torch.tensor(math.nan)}, torch.tensor(0) if is_on_device else 0)
    assert math.isnan(empty.result()["loss"])


def test_a_metric_is_averaged_over_the_batches_that_have_it() -> None:
    """Catches a metric that is divided by the items of batches without it."""
    mean = WeightedMean(torch.float64)
    mean.add({"loss": 1.0, "rare": 4.0}, 2)
    mean.add({"loss": 4.0}, 1)
    assert mean.result() == {"loss": 2.0, "rare": 4.0}


def test_sums_are_kept_in_the_type_given() -> None:
    """Catches a sum of many float32 values that loses the small ones."""
    mean = WeightedMean(torch.float64)
    mean.add({"loss": torch.tensor(2.0**25)}, 1)
    mean.add({"loss": torch.tensor(1.0)}, 1)
    assert mean.result()["loss"] == (2.0**25 + 1) / 2
