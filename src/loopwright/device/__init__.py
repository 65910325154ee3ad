"""Devices, processes and strategies. Only this package uses the interfaces of accelerators such as ``torch.cuda``."""

from loopwright.device.accelerator import Cpu, Gpu, MpsGpu
from loopwright.device.blocks import find_blocks
from loopwright.device.compiling import check_compiler
from loopwright.device.copy_stream import move_tensors
from loopwright.device.determinism import deterministic_operations, operation_without_form
from loopwright.device.device import (
    MAX_THREADS,
    Device,
    Waits,
    choose_num_threads,
    count_devices,
    is_auto,
    open_device,
    resolve_kind,
)
from loopwright.device.ranks import Alone, Together, is_peer_error
from loopwright.device.strategies import Replicated, Single, make_strategy
from loopwright.device.world import World, read_world

__all__ = [
    "MAX_THREADS",
    "Alone",
    "Cpu",
    "Device",
    "Gpu",
    "MpsGpu",
    "Replicated",
    "Single",
    "Together",
    "Waits",
    "World",
    "check_compiler",
    "choose_num_threads",
    "count_devices",
    "deterministic_operations",
    "find_blocks",
    "is_auto",
    "is_peer_error",
    "make_strategy",
    "move_tensors",
    "open_device",
    "operation_without_form",
    "read_world",
    "resolve_kind",
]
