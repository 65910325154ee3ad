"""Outputs of a model: the loss, the number of items, and averages that are weighted by them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor

from loopwright.engine.weighting import Weigher, WeightedMean, as_outputs, num_samples, read_back
from loopwright.errors import DataError
from loopwright.protocols import DataFacts

ONE = torch.ones(())
PAIR = torch.ones(2)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, "None: expected the loss as a scalar tensor"),
        ((ONE,), "an object of class tuple: expected the loss"),
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


class Source:
    """What a `Weigher` asks of a source: the batch size, and the number of indices of a batch."""

    def __init__(self, num_read: int | None = None, batch_size: int | None = None) -> None:
        self.facts = DataFacts(batch_size=batch_size)
        self._num_read = num_read

    def num_samples(self, batch_index: int) -> int | None:
        return self._num_read


def weigher(num_read: int | None = None, batch_size: int | None = None) -> Weigher:
    source: Any = Source(num_read, batch_size)
    return Weigher(source, set())


IMAGES = [torch.zeros(3, 4, 4), torch.zeros(3, 5, 5)]


@pytest.mark.parametrize(
    ("outputs", "num_read", "expected"),
    [
        ({"num_items": 7}, 5, 7),
        ({"num_items": 0}, 5, 0),
        ({"num_items": torch.tensor(6.0, requires_grad=True)}, 5, 6),
        ({"num_items": None}, 5, 5),
        ({}, 5, 5),
        ({}, None, 3),
    ],
)
def test_items_are_the_models_count_or_the_indices_read_or_the_rows(outputs: Any, num_read: Any, expected: int) -> None:
    """Catches a weight of 3, the channels of the first image, and a count that keeps a graph alive."""
    found = weigher(num_read).known(outputs, IMAGES, 0)
    assert found == expected
    assert not isinstance(found, Tensor)


@pytest.mark.parametrize(
    ("batch", "batch_size", "expected"),
    [
        (torch.zeros(3, 2), None, 3),
        ({"ids": ["a"], "x": torch.zeros(4), "y": torch.zeros(4, 2)}, None, 4),
        (Batch(["a"], torch.zeros(5, 1)), None, 5),
        (Batch(["a"], torch.zeros(5, 1)), 5, 5),
        ((IMAGES, torch.zeros(2)), None, 2),
        ({"x": torch.zeros(4), "temperature": ONE}, None, 4),
        ((torch.zeros(7, 2, 8), torch.zeros(2)), None, None),  # time first
        ({"edge_index": torch.zeros(2, 9), "x": torch.zeros(5, 3)}, None, None),
        (torch.zeros(7, 2), 4, None),
        ({"x": (torch.zeros(4), PAIR)}, None, None),
        (["text"], None, None),
        ("text", None, None),
        (ONE, None, None),
        (None, None, None),
        (Batch, None, None),
    ],
)
def test_rows_are_samples_if_all_tensors_agree(batch: Any, batch_size: Any, expected: int | None) -> None:
    """Catches the edges, time steps or tokens of a batch that are counted as its samples."""
    assert num_samples(batch, batch_size) == expected
    if expected is None:
        with pytest.raises(DataError, match=r"number of samples in the batch is unknown: .* return num_items"):
            weigher(batch_size=batch_size).known({}, batch, 0)


@pytest.mark.parametrize(
    "given", [2.5, "5", True, -1, torch.tensor([5]), torch.tensor(-1), torch.tensor(math.nan), numpy.float32(2)]
)
def test_a_number_of_items_that_is_no_count_is_refused(given: Any) -> None:
    """Catches a weight of True, or a negative one."""
    with pytest.raises(TypeError, match=r"returned num_items=.*: expected an integer or a scalar tensor, of at"):
        weigher().known({"num_items": given}, PAIR, 0)


def test_metrics_are_the_single_numbers_without_the_number_of_items() -> None:
    """Catches logits that are logged, an average of ``num_items``, and a metric that keeps a graph alive."""
    outputs = {
        "loss": ONE.clone().requires_grad_(),
        "rate": 0.5,
        "num_items": 3,
        "logits": PAIR,
        "name": "x",
        "one": torch.tensor([2.0]),
        "array": numpy.array(3.0),
        "array_of_one": numpy.array([4], dtype=numpy.int16),
        "scalar": numpy.float32(5),
        "words": numpy.array("x"),
    }
    found = weigher().metrics(outputs, PAIR, 0)
    assert {name: float(value) for name, value in found.items()} == {
        "loss": 1, "rate": 0.5, "one": 2, "array": 3, "array_of_one": 4, "scalar": 5
    }  # fmt: skip
    loss = found["loss"]
    assert isinstance(loss, Tensor) and not loss.requires_grad


def test_a_value_for_each_sample_is_no_metric_of_a_batch_of_one(caplog: pytest.LogCaptureFixture) -> None:
    """Catches the prediction for the last sample of a pass that is averaged as a metric, and a warning each time."""
    outputs = {"loss": ONE, "prediction": torch.tensor([7.0])}
    ours = weigher(num_read=1)
    for _ in range(2):
        assert list(ours.metrics(outputs, PAIR, 0)) == ["loss"]
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "The model returned prediction of shape (1,) for a batch of one sample"
    ]


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
    assert math.isnan(empty.result()["loss"]) if is_on_device else empty.result() == {}


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
