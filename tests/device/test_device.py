"""Tests of `open_device`, `Device` and `move_tensors`."""

from __future__ import annotations

import collections
import dataclasses
import re
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml
from torch.utils.data import DataLoader

from loopwright import Trainer, TrainingLoop
from loopwright.device import Device, choose_num_threads, is_auto, move_tensors, open_device, resolve_kind
from loopwright.errors import SettingError
from tiny import Regression, batches, rows, sgd

META = torch.device("meta")


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Set torch's number of threads to 2 for a test."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


class Pair(NamedTuple):
    x: Any
    y: Any


@pytest.mark.parametrize("name", ["cpu", torch.device("cpu"), Device(kind="cpu")])
def test_the_cpu_does_not_move_batches(name: Any) -> None:
    device = open_device(name)
    batch = {"x": torch.ones(1)}
    assert not device.changes_batches and device.stream is None and device.move(batch) is batch


def test_auto_opens_a_device() -> None:
    assert open_device("auto").torch_device.type in ("cpu", "cuda", "xpu", "mps")


@pytest.mark.parametrize("kind", ["cpu", "gpu", "cuda", "mps", "xpu"])
def test_a_kind_that_was_chosen_is_kept_and_auto_chooses_one(kind: str) -> None:
    assert resolve_kind(kind) == kind
    opened = open_device("auto").torch_device.type
    assert resolve_kind("auto") == {"cpu": "cpu", "cuda": "gpu", "xpu": "xpu", "mps": "mps"}[opened]


@pytest.mark.parametrize(
    ("device", "expected"),
    [("auto", True), (Device(), True), ("cpu", False), (Device(kind="cpu"), False), (torch.device("cpu"), False)],
)
def test_auto_is_told_from_a_device_that_was_chosen(device: Any, expected: bool) -> None:
    assert is_auto(device) is expected


@pytest.mark.parametrize(("num_parameters", "num_threads"), [(0, 1), (24_999, 1), (25_000, 2), (10**9, 2), (None, 2)])
def test_a_small_model_computes_with_one_thread(
    two_threads: None, num_parameters: int | None, num_threads: int
) -> None:
    assert choose_num_threads(Device(kind="cpu"), num_parameters) == num_threads
    assert choose_num_threads(Device(kind="cpu", num_threads=3), num_parameters) == 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("name", ["gpu", "cuda", "cuda:1"])
def test_a_gpu_that_is_not_available_is_refused(name: str) -> None:
    with pytest.raises(SettingError, match="no GPU is available: use cpu or auto"):
        open_device(name)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: open_device("gpuu"), "device='gpuu': expected one of auto, cpu, gpu, cuda, mps, xpu"),
        (lambda: open_device(3), "device=3"),  # type: ignore[arg-type]
        (lambda: open_device("meta"), "device='meta'"),
        (lambda: Device(kind="cpuu"), "kind='cpuu'.*Did you mean cpu"),
        (lambda: Device(num_processes=0), "num_processes=0"),
        (lambda: Device(kind="mps", num_processes=2), "num_processes=2: expected 1 with kind=mps; use kind=cpu"),
        (lambda: Device(strategy="fdsp"), "strategy=.fdsp.: expected ddp or fsdp. Did you mean fsdp"),
        (lambda: Device(waits={"timeout": 1}), "waits.timeout: no such setting.*timeout_seconds"),  # type: ignore[arg-type]
        (lambda: Device(unused_parameters="no"), "unused_parameters=.no."),  # type: ignore[arg-type]
        (lambda: Device(num_threads=0), "num_threads=0"),
        (lambda: Device(num_threads="2"), "num_threads='2'"),  # type: ignore[arg-type]
    ],
)
def test_unknown_devices_and_invalid_settings_are_refused(make: Any, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        make()


def test_every_tensor_of_a_nested_batch_is_moved_and_the_container_types_are_kept() -> None:
    x = torch.ones(2)
    batch = {"a": [x, "text"], "b": (x, Pair(x, 3)), "c": OrderedDict(d=x)}
    moved = move_tensors(batch, META)
    assert moved["a"][0].device == META and moved["a"][1] == "text"
    assert moved["b"][0].device == META and type(moved["b"][1]) is Pair and moved["b"][1].x.device == META
    assert type(moved["c"]) is OrderedDict and moved["c"]["d"].device == META


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_fit_on_the_gpu_is_reproducible_and_restores_the_global_generator() -> None:
    def run() -> list[float]:
        ours = Trainer(
            model=lambda: Regression(dropout=0.5), optimizer=sgd, loop=TrainingLoop(num_steps=6), device="gpu"
        )
        ours.fit(batches(8), DataLoader(rows(8)))
        assert all(parameter.device.type == "cuda" for parameter in ours.model.parameters())
        assert torch.cuda.get_device_name() in ours.model_lines
        return [value for tensor in ours.model.state_dict().values() for value in tensor.flatten().tolist()]

    torch.manual_seed(0)
    expected = torch.rand(3, device="cuda").tolist()
    torch.manual_seed(0)
    assert run() == run()
    assert torch.rand(3, device="cuda").tolist() == expected


def test_batches_of_other_types_are_moved() -> None:
    @dataclasses.dataclass
    class Batch:
        x: torch.Tensor
        name: str

    counted = collections.defaultdict(list, {"x": torch.ones(1)})
    assert move_tensors(counted, META)["x"].device == META and counted["x"].device.type == "cpu"
    assert move_tensors(Batch(torch.ones(1), "a"), META).x.device == META
    packed = torch.nn.utils.rnn.pack_sequence([torch.ones(2), torch.ones(1)])
    assert move_tensors(packed, torch.device("cpu")).data.tolist() == [1.0, 1.0, 1.0]


def test_the_page_lists_every_setting_with_its_default() -> None:
    page = (Path(__file__).parents[2] / "docs" / "devices.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(\w+)` \| `(\w+)` \|", page.partition("## Kinds")[0], flags=re.MULTILINE)
    fields = {field.name: field.default for field in dataclasses.fields(Device)} | {"waits": None}
    assert {name: yaml.safe_load(default) for name, default in listed} == fields
