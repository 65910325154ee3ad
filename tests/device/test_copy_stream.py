"""Copies to a GPU on a stream of their own: which tensors are copied there, and their values and memory on a GPU."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from loopwright.device import Gpu
from loopwright.device.copy_stream import CopyStream, copy_from_cpu

META = torch.device("meta")
needs_gpu = pytest.mark.skipif(
    not (torch.cuda.is_available() or torch.xpu.is_available()), reason="needs a GPU with CUDA, ROCm or XPU"
)


class Pair(NamedTuple):
    x: Any
    y: Any


class Own(Tensor):
    """A subclass of `Tensor`, which may consist of several tensors."""


def test_every_plain_tensor_from_the_cpu_is_copied_and_noted() -> None:
    batch = {"a": [torch.ones(2), "text"], "b": (torch.ones(3), Pair(torch.ones(4), 3)), "c": OrderedDict(d=None)}
    moved, copies, is_whole = copy_from_cpu(batch, META)
    assert is_whole and [len(copy) for copy in copies] == [2, 3, 4]
    assert moved["a"][0] is copies[0] and moved["b"][0] is copies[1] and moved["b"][1].x is copies[2]
    assert moved["a"][1] == "text" and type(moved["b"][1]) is Pair and type(moved["c"]) is OrderedDict
    assert all(copy.device == META for copy in copies)


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.ones(2, device=META),
        lambda: torch.ones(2).to_sparse(),
        lambda: torch.ones(2).as_subclass(Own),
        lambda: pack_sequence([torch.ones(2), torch.ones(1)]),
    ],
    ids=["on a device", "sparse", "subclass", "object"],
)
def test_other_tensors_and_objects_are_left_to_the_current_stream(make: Any) -> None:
    other, plain = make(), torch.ones(2)
    moved, copies, is_whole = copy_from_cpu([other, plain], META)
    assert moved[0] is other and moved[1] is copies[0] and len(copies) == 1 and not is_whole


def test_a_batch_on_the_device_is_returned_as_it_is() -> None:
    on_device = torch.ones(2, device=META)
    moved, copies, _ = copy_from_cpu({"x": on_device}, META)
    assert moved["x"] is on_device and copies == []


def test_a_copy_has_the_memory_format_of_the_setting() -> None:
    image = torch.ones(2, 3, 4, 4)
    moved, copies, _ = copy_from_cpu([image, image > 0], META, channels_last=True)
    assert moved[0].is_contiguous(memory_format=torch.channels_last) and not moved[0].is_contiguous()
    assert moved[1].is_contiguous() and len(copies) == 2


def gpu() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "xpu", 0)


def busy(device: torch.device) -> Tensor:
    """Queue matrix products that take much longer than a copy, and return their result."""
    product = torch.eye(4096, device=device)
    for _ in range(60):
        product = product @ product
    return product


def host(value: float, *, pinned: bool, num_values: int = 1 << 20) -> Tensor:
    tensor = torch.full((num_values,), value)
    return tensor.pin_memory() if pinned else tensor


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("pinned", [True, False])
def test_values_are_right_while_a_long_computation_runs(pinned: bool) -> None:
    device = gpu()
    move = Gpu(device).move
    sums = []
    for value in range(50):
        product = busy(device)
        batch = move({"x": host(value, pinned=pinned), "pair": (host(-value, pinned=pinned), "text")})
        sums.append(torch.stack([batch["x"].mean(), batch["pair"][0].mean()]) * product[0, 0])
    assert [each.tolist() for each in sums] == [[value, -value] for value in range(50)]


@pytest.mark.gpu
@needs_gpu
def test_memory_is_not_reused_before_the_computation_has_read_it() -> None:
    device = gpu()
    move = Gpu(device).move
    sums = []
    for value in range(100):  # each batch is dropped while its sum is queued behind the products
        product = busy(device)
        sums.append(move(host(value, pinned=True)).mean() * product[0, 0])
    assert [float(each) for each in sums] == list(range(100))


@pytest.mark.gpu
@needs_gpu
def test_a_copy_does_not_wait_for_the_computation() -> None:
    device = gpu()
    module = torch.get_device_module(device)
    copies = CopyStream(device)
    source = host(1, pinned=True)  # an allocation of pinned memory may wait for the device
    copies.move(source)
    module.synchronize()
    product = busy(device)
    computed = module.Event()
    computed.record()
    copied = copies.move(source)
    copies._stream.synchronize()
    assert not computed.query()  # the copy has ended, and the products are still computed
    assert float(copied.mean() * product[0, 0]) == 1


@pytest.mark.gpu
@needs_gpu
def test_other_kinds_of_batches_are_moved_to_the_gpu() -> None:
    device = gpu()
    on_device = torch.ones(2, device=device)
    packed = pack_sequence([torch.ones(2), torch.ones(1)])
    moved = Gpu(device, channels_last=True).move([on_device, packed, torch.ones(2).to_sparse(), torch.ones(1, 3, 2, 2)])
    assert moved[0] is on_device
    assert isinstance(moved[1], PackedSequence) and moved[1].data.device == device
    assert moved[2].device == device and moved[2].to_dense().tolist() == [1.0, 1.0]
    assert moved[3].is_contiguous(memory_format=torch.channels_last) and moved[3].device == device
