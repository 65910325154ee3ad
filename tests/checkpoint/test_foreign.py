"""`read_torch_weights` reads tensors from files of ``torch.save``, refuses other content, and runs no code."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from loopwright.checkpoint import read_torch_weights
from loopwright.errors import CheckpointError

WEIGHTS = {"layers.0.weight": torch.arange(6.0).view(2, 3), "layers.0.bias": torch.ones(2, dtype=torch.bfloat16)}


def same(found: dict[str, torch.Tensor]) -> bool:
    return found.keys() == WEIGHTS.keys() and all(torch.equal(found[name], WEIGHTS[name]) for name in WEIGHTS)


@pytest.mark.parametrize(
    ("content", "key"),
    [
        (WEIGHTS, None),
        (OrderedDict(WEIGHTS), None),
        ({"state_dict": WEIGHTS, "epoch": 3, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}}, None),
        ({"model": WEIGHTS, "ema": WEIGHTS}, "model"),
        ({"nets": {"best": WEIGHTS, "last": {}}}, "nets.best"),
        ({f"module.{name}": tensor for name, tensor in WEIGHTS.items()}, None),
        ({f"_orig_mod.{name}": tensor for name, tensor in WEIGHTS.items()}, None),
        ({f"module._orig_mod.{name}": tensor for name, tensor in WEIGHTS.items()}, None),
        ({name.replace("layers.0.", "layers.0._orig_mod."): tensor for name, tensor in WEIGHTS.items()}, None),
    ],
)
def test_weights_are_found_under_plain_names(content: Any, key: str | None, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "file.pt")
    assert same(read_torch_weights(tmp_path / "file.pt", key))


def test_parameters_become_tensors(tmp_path: Path) -> None:
    torch.save({name: nn.Parameter(tensor) for name, tensor in WEIGHTS.items()}, tmp_path / "file.pt")
    found = read_torch_weights(tmp_path / "file.pt")
    assert same(found) and not any(tensor.requires_grad for tensor in found.values())


class Bomb:
    """Creates a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.path),)


def _bomb(file: Path) -> None:
    torch.save({"weight": torch.ones(2), "extra": Bomb(file.parent / "exploded")}, file)


def _module(file: Path) -> None:
    torch.save(nn.Linear(2, 2), file)


def _pickle(file: Path) -> None:
    file.write_bytes(pickle.dumps({"weight": Bomb(file.parent / "exploded")}))


def _old_format(file: Path) -> None:
    torch.save(WEIGHTS, file, _use_new_zipfile_serialization=False)


def _compressed(file: Path) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 10_000_000)


def _other_zip(file: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("hello.txt", "hello")


def _truncated(file: Path) -> None:
    torch.save(WEIGHTS, file)
    file.write_bytes(file.read_bytes()[:-30])


def _text(file: Path) -> None:
    file.write_text("weights")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_bomb, "cannot be read with weights_only=True"),
        (_module, "cannot be read with weights_only=True"),
        (_pickle, "expected a file that torch.save wrote in its zip format"),
        (_old_format, "expected a file that torch.save wrote in its zip format"),
        (_compressed, "has compressed or overlapping entries"),
        (_other_zip, "cannot be read with weights_only=True"),
        (_truncated, "expected a file that torch.save wrote in its zip format"),
        (_text, "expected a file that torch.save wrote in its zip format"),
        (Path.mkdir, "a folder; expected a file that torch.save wrote."),
    ],
)
def test_other_content_is_refused_in_one_line_and_runs_no_code(
    make: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    make(tmp_path / "file.pt")
    with pytest.raises(CheckpointError) as caught:
        read_torch_weights(tmp_path / "file.pt")
    assert str(caught.value).startswith(f"{tmp_path / 'file.pt'}: ")
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("content", "key", "message"),
    [
        (
            {"model": WEIGHTS, "ema": WEIGHTS},
            None,
            "found several mappings of names to tensors: model, ema; choose one",
        ),
        ({"epoch": 3}, None, "found no mapping of names to tensors. Available: epoch; name a nested"),
        ([torch.ones(2)], None, "found no mapping of names to tensors. Available: nothing;"),
        ({"model": WEIGHTS}, "modle", "key=modle: found no entry named modle. Available: model. Did you mean model?"),
        ({"model": WEIGHTS, "epoch": 3}, "epoch", "key=epoch: expected a mapping of names to tensors"),
    ],
)
def test_an_ambiguous_or_wrong_key_is_reported(content: Any, key: str | None, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "file.pt")
    with pytest.raises(CheckpointError) as caught:
        read_torch_weights(tmp_path / "file.pt", key)
    assert message in str(caught.value)
