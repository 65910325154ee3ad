"""Devices, processes and strategies. Only this package uses the interfaces of accelerators such as ``torch.cuda``."""

from loopwright.device.accelerator import Cpu, Gpu, MpsGpu, move_tensors
from loopwright.device.blocks import find_blocks
from loopwright.device.compiling import check_compiler
from loopwright.device.determinism import deterministic_operations, deterministic_workspace, operation_without_form
from loopwright.device.device import MAX_THREADS, Device, choose_num_threads, is_auto, open_device, resolve_kind
from loopwright.device.ranks import Alone
from loopwright.device.strategies import Single

__all__ = [
    "MAX_THREADS",
    "Alone",
    "Cpu",
    "Device",
    "Gpu",
    "MpsGpu",
    "Single",
    "check_compiler",
    "choose_num_threads",
    "deterministic_operations",
    "deterministic_workspace",
    "find_blocks",
    "is_auto",
    "move_tensors",
    "open_device",
    "operation_without_form",
    "resolve_kind",
]
