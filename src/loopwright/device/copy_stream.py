"""`CopyStream`: copies batches to a GPU while the GPU computes the operations that are queued already."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from loopwright.device.memory_format import MEMORY_FORMAT, has_format
from loopwright.precision import map_tensors


class CopyStream:
    """Copies tensors to a GPU on a stream of its own.

    A GPU carries out the operations of one stream in order, so a copy on the stream of the training would wait for
    the computations of earlier steps. ::

        on the copy stream: copy each tensor from the CPU
        the current stream waits for the copy stream    # the CPU does not wait
        record each copy on the current stream          # the allocator reuses its memory after this stream has used it

    Tensors that are on a GPU already, and objects whose tensors are unknown, are moved on the current stream.

    Args:
        device: torch device of the type "cuda" or "xpu".
        channels_last: whether 4-D floating-point tensors are also converted to the memory format channels_last.
    """

    def __init__(self, device: torch.device, *, channels_last: bool = False) -> None:
        self._device = device
        self._channels_last = channels_last
        self._stream: Any = None  # created by the first copy, because a stream needs an initialised device

    def move(self, batch: Any) -> Any:
        """Return a copy of ``batch`` with its tensors on the device. See `move_tensors` for the types of batches."""
        module = torch.get_device_module(self._device)
        if self._stream is None:
            self._stream = module.Stream(device=self._device)
        with module.stream(self._stream):
            batch, copies, is_whole = copy_from_cpu(batch, self._device, channels_last=self._channels_last)
        if copies:
            current = module.current_stream(self._device)
            current.wait_stream(self._stream)
            for copy in copies:
                copy.record_stream(current)
        return batch if is_whole else move_tensors(batch, self._device, channels_last=self._channels_last)


def copy_from_cpu(batch: Any, device: torch.device, *, channels_last: bool = False) -> tuple[Any, list[Tensor], bool]:
    """Copy the plain tensors in ``batch`` that are on the CPU to ``device``.

    Other tensors, and objects with a method ``to``, are not changed. Operations that create them or use them may be
    queued on the current stream, and not all of their memory can be recorded on a stream.

    Returns:
        The batch, the copies, and whether the batch has nothing else to move.
    """
    copies: list[Tensor] = []
    is_whole = True

    def copied(value: Any) -> Any:
        nonlocal is_whole
        if type(value) is not Tensor or value.device.type != "cpu" or value.layout is not torch.strided:
            is_whole = False
            return value
        copies.append(_moved(value, device, channels_last))
        return copies[-1]

    return map_tensors(batch, copied), copies, is_whole


def move_tensors(batch: Any, device: torch.device, *, channels_last: bool = False) -> Any:
    """Return a copy of ``batch`` with its tensors on ``device``.

    Tensors in nested mappings, lists, tuples and dataclasses are also moved. Other objects with a method ``to`` are
    moved with ``to(device)``. All other objects are not changed.

    Args:
        batch: batch that a dataloader yielded.
        device: device to move the tensors to.
        channels_last: whether 4-D floating-point tensors are also converted to the memory format channels_last.
    """
    return map_tensors(batch, partial(_moved, device=device, channels_last=channels_last))


def _moved(value: Any, device: torch.device, channels_last: bool) -> Any:
    if not isinstance(value, Tensor):
        return value.to(device)
    if channels_last and has_format(value):
        return value.to(device, non_blocking=True, memory_format=MEMORY_FORMAT)
    return value.to(device, non_blocking=True)
