from __future__ import annotations

import copy
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from loopwright.checkpoint import (
    load_weights,
    plain_names,
    plain_parameters,
    read_checkpoint,
    step_folder,
    weights_digest,
    write_checkpoint,
)
from loopwright.errors import CheckpointError


class Net(nn.Module):
    """A model with a submodule called ``module``, which is also the prefix of a wrapper."""

    def __init__(self) -> None:
        super().__init__()
        self.module = nn.Linear(3, 2)
        self.norm = nn.BatchNorm1d(2)


NAMES = ["module.weight", "module.bias", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var",
         "norm.num_batches_tracked"]  # fmt: skip


def compiled(model: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the first use of the compiler warns about its own imports
        return torch.compile(model)  # type: ignore[return-value]


def test_wrapped_models_have_the_names_of_the_plain_model() -> None:
    assert list(plain_names(Net())) == NAMES
    assert list(plain_names(nn.DataParallel(Net()))) == NAMES
    wrapped_twice = nn.Sequential(nn.DataParallel(nn.Sequential(nn.DataParallel(Net()))))
    assert list(plain_names(wrapped_twice)) == [f"0.0.{name}" for name in NAMES]


def test_compiled_models_have_the_names_of_the_plain_model() -> None:
    assert list(plain_names(compiled(Net()))) == NAMES
    assert list(plain_names(compiled(nn.DataParallel(Net())))) == NAMES
    part = Net()
    part.module = compiled(part.module)  # type: ignore[assignment]
    assert sorted(plain_names(part)) == sorted(NAMES)


def test_a_tied_parameter_appears_under_all_its_plain_names() -> None:
    model = Net()
    model.again = model.module
    parameters = plain_parameters(nn.DataParallel(model))
    assert list(parameters) == [*NAMES[:4], "again.weight", "again.bias"]
    assert parameters["again.weight"] is parameters["module.weight"] is model.module.weight


def test_weights_of_a_wrapped_model_load_into_a_plain_one_and_back() -> None:
    source, target = nn.DataParallel(Net()), Net()
    load_weights(target, plain_names(source))
    assert weights_digest(plain_names(target)) == weights_digest(plain_names(source))
    other = nn.DataParallel(Net())
    load_weights(other, plain_names(target))
    assert torch.equal(other.module.module.weight, target.module.weight)


def test_unmatched_names_are_listed_with_the_nearest_and_nothing_is_loaded() -> None:
    model = Net()
    before = weights_digest(plain_names(model))
    tensors = dict(plain_names(Net()))
    tensors["module.wieght"] = tensors.pop("module.weight")
    with pytest.raises(CheckpointError) as caught:
        load_weights(model, tensors)
    assert str(caught.value) == (
        "the checkpoint does not fit the model: missing module.weight 2x3 float32 (nearest: module.wieght); "
        "unexpected module.wieght 2x3 float32 (nearest: module.weight)."
    )
    assert weights_digest(plain_names(model)) == before


def test_other_shapes_and_dtypes_are_refused() -> None:
    tensors = dict(plain_names(Net()))
    with pytest.raises(CheckpointError, match=r"module\.weight: the model has 2x3 float32, the checkpoint 3x2 float32"):
        load_weights(Net(), {**tensors, "module.weight": torch.ones(3, 2)})
    with pytest.raises(CheckpointError, match="the checkpoint 2x3 float64"):
        load_weights(Net(), {**tensors, "module.weight": torch.ones(2, 3, dtype=torch.float64)})


def test_long_lists_of_names_are_shortened() -> None:
    with pytest.raises(CheckpointError, match=r"missing .* and 2 more\.$"):
        load_weights(Net(), {})


def tied() -> nn.Sequential:
    model = nn.Sequential(nn.Embedding(4, 3), nn.Linear(3, 4, bias=False))
    model[1].weight = model[0].weight
    return model


def test_tied_weights_load_into_tied_and_untied_models() -> None:
    source = plain_names(tied())
    for model in (tied(), nn.Sequential(nn.Embedding(4, 3), nn.Linear(3, 4, bias=False))):
        load_weights(model, copy.deepcopy(source))
        assert torch.equal(model[1].weight, source["0.weight"])


def test_untied_weights_do_not_fit_a_tied_model() -> None:
    untied = nn.Sequential(nn.Embedding(4, 3), nn.Linear(3, 4, bias=False))
    with pytest.raises(CheckpointError, match=r"0\.weight and 1\.weight share memory in the model, but not in"):
        load_weights(tied(), plain_names(untied))


def test_a_checkpoint_loads_tied_weights(tmp_path: Path) -> None:
    source, target = tied(), tied()
    path = write_checkpoint(step_folder(tmp_path, 1), {"model": plain_names(source)}, step=1)
    load_weights(target, read_checkpoint(path, weights_only=True).state["model"])
    assert target[0].weight is target[1].weight
    assert torch.equal(target[0].weight, source[0].weight)


def test_the_digest_depends_on_names_dtypes_shapes_and_bits_but_not_on_order() -> None:
    tensors = {"a": torch.zeros(2, 3), "b": torch.ones(1)}
    digest = weights_digest(tensors)
    assert digest == weights_digest({"b": torch.ones(1), "a": torch.zeros(2, 3)})
    others = [
        {"a": torch.zeros(3, 2), "b": torch.ones(1)},
        {"a": torch.zeros(2, 3, dtype=torch.int32), "b": torch.ones(1)},
        {"a": -torch.zeros(2, 3), "b": torch.ones(1)},
        {"c": torch.zeros(2, 3), "b": torch.ones(1)},
        {"a": torch.zeros(2, 3)},
    ]
    assert len({digest, *map(weights_digest, others)}) == 6
    assert weights_digest({"a": torch.arange(6.0).reshape(2, 3).mT}) == weights_digest(
        {"a": torch.arange(6.0).reshape(2, 3).mT.contiguous()}
    )
