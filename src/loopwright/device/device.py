"""`Device`, the device settings of a run, and `open_device`, which returns the `Accelerator` for these settings."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import torch

from loopwright.device.accelerator import Cpu, Gpu, MpsGpu
from loopwright.device.compiling import Compiling, read_compiling
from loopwright.device.matmul import MATMUL
from loopwright.errors import SettingError, check_count, did_you_mean, refuse, refuse_type
from loopwright.protocols import Accelerator

# Larger numbers of threads are refused as mistakes, because few machines have more than a thousand CPUs.
MAX_THREADS = max(1_024, os.cpu_count() or 1)
# For each measured model with fewer parameters, a second thread saved at most 10 % of the time of a step. On a busy
# machine, a second thread made runs up to 16 times slower. This limit was measured with bench/threads.py. The limit is
# constant, because the number of threads changes the rounding of results.
FEW_PARAMETERS = 25_000
MAX_SECONDS = 1_000_000
KINDS = ("auto", "cpu", "gpu", "cuda", "mps", "xpu")
STRATEGIES = ("ddp", "fsdp")
ON_OOM = ("stop", "split")
MAX_PROCESSES = 1_024  # on one machine
_TORCH_TYPES = {"gpu": "cuda"}  # for kinds whose name in torch differs


@dataclass(frozen=True, slots=True)
class Waits:
    """Time limits for the communication between processes, and for their end after a signal.

    Args:
        timeout_seconds: longest wait for the other processes in one communication, in seconds.
        grace_seconds: seconds from a signal until the command ``loopwright`` kills a process that has not finished its
            step and its save.

    Raises:
        SettingError: if a value is not a whole number of at least 1.
    """

    timeout_seconds: int = 600
    grace_seconds: int = 600

    def __post_init__(self) -> None:
        """Check the settings."""
        check_count("waits.timeout_seconds", self.timeout_seconds, most=MAX_SECONDS)
        check_count("waits.grace_seconds", self.grace_seconds, most=MAX_SECONDS)


def read_waits(given: object) -> Waits:
    """Build a `Waits` from a mapping from setting names to values. None selects the defaults.

    Raises:
        SettingError: if ``given`` is not a mapping, or if it contains an unknown name or an invalid value.
    """
    if given is None:
        return Waits()
    if not isinstance(given, Mapping):
        raise refuse_type("waits", given, "a mapping with timeout_seconds and grace_seconds")
    names = [field.name for field in fields(Waits)]
    unknown = [str(name) for name in given if name not in names]
    if unknown:
        raise SettingError(f"waits.{unknown[0]}", f": no such setting.{did_you_mean(unknown[0], names)}")
    return Waits(**given)


@dataclass(frozen=True, slots=True)
class Device:
    """Device settings of a run.

    Args:
        kind: "cpu", "gpu" or "cuda" (a GPU through CUDA or ROCm), "xpu" (a GPU of Intel), "mps" (the GPU of an Apple
            chip), or "auto", which chooses the first available of gpu, xpu, mps and cpu.
        num_processes: number of processes on this machine that train together. The command ``loopwright`` starts
            these processes. A launcher such as torchrun starts the processes of a script with a `Trainer`. In such a
            script, 1 is accepted for any number of processes.
        num_threads: number of threads for operations on the CPU; None: `choose_num_threads` chooses the number. A run
            records the number, because the rounding of results depends on the number. The command ``loopwright`` sets
            the number in its process. The `Trainer` does not set it.
        matmul: precision of float32 matrix multiplications during a run: "highest", "high" or "medium"; see
            `torch.set_float32_matmul_precision`. None: the precision is not changed.
        channels_last: whether 4-D weights and 4-D floating-point tensors of batches have the memory format
            channels_last.
        compile: "blocks" to compile the repeated blocks of the model, "model" to compile the whole model, or a mapping
            with ``target`` ("blocks" or "model") and optionally ``mode``, ``dynamic`` and ``backend`` of
            `torch.compile`. None: nothing is compiled.
        blocks: class names of the repeated blocks; None: `loopwright.device.blocks.find_blocks` looks for them.
        strategy: how several processes train one model. "ddp": each process has a copy of the model. "fsdp": each
            process stores a shard of each weight. With one process, this setting has no effect.
        unused_parameters: with "ddp", whether each step searches for parameters without a gradient. Must be True if a
            parameter may get no gradient in a step. The search takes time.
        reshard: with "fsdp", whether gathered weights are freed after the forward of their block, and gathered again in
            the backward. Otherwise, a step takes less time and more memory.
        on_oom: action after an out-of-memory error in a forward or a backward. "stop": the run fails. "split": the
            micro-batch is computed again in 2, 4, … parts. Later micro-batches are computed in equally many parts.
        waits: time limits for the communication between processes, and for their end after a signal.

    Raises:
        SettingError: if a value is unknown or has a wrong type; if a count is not an integer of at least 1; if
            ``num_threads`` exceeds both 1,024 and the number of CPUs; for several processes on MPS; for
            ``on_oom="split"`` with ``strategy="fsdp"``; and for ``blocks`` if ``compile`` does not select blocks.
    """

    kind: str = "auto"
    num_processes: int = 1
    num_threads: int | None = None
    matmul: str | None = None
    channels_last: bool = False
    compile: str | Mapping[str, object] | None = None
    blocks: Sequence[str] | None = None
    strategy: str = "ddp"
    reshard: bool = True
    unused_parameters: bool = False
    on_oom: str = "stop"
    waits: Waits = Waits()

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.kind not in KINDS:
            raise refuse("kind", self.kind, f"one of {', '.join(KINDS)}", did_you_mean(str(self.kind), KINDS).strip())
        if check_count("num_processes", self.num_processes, most=MAX_PROCESSES) > 1 and self.kind == "mps":
            raise refuse("num_processes", self.num_processes, "1 with kind=mps", "use kind=cpu")
        if self.strategy not in STRATEGIES:
            raise refuse(
                "strategy", self.strategy, " or ".join(STRATEGIES), did_you_mean(str(self.strategy), STRATEGIES).strip()
            )
        if self.num_threads is not None:
            check_count("num_threads", self.num_threads, most=MAX_THREADS)
        if self.matmul is not None and self.matmul not in MATMUL:
            hint = did_you_mean(str(self.matmul), MATMUL).strip()
            raise refuse("matmul", self.matmul, f"{', '.join(MATMUL)} or null", hint)
        if self.on_oom not in ON_OOM:
            raise refuse("on_oom", self.on_oom, " or ".join(ON_OOM), did_you_mean(str(self.on_oom), ON_OOM).strip())
        if self.on_oom == "split" and self.strategy == "fsdp":
            remedy = "use strategy=ddp, or a smaller data.batch_size"
            raise refuse("on_oom", self.on_oom, "stop with strategy=fsdp", remedy)
        if self.channels_last and self.strategy == "fsdp":
            raise refuse("channels_last", self.channels_last, "false with strategy=fsdp", "use strategy=ddp")
        for name in ("channels_last", "reshard", "unused_parameters"):
            if not isinstance(getattr(self, name), bool):
                raise refuse_type(name, getattr(self, name), "true or false")
        if not isinstance(self.waits, Waits):
            object.__setattr__(self, "waits", read_waits(self.waits))
        self._check_blocks()

    @property
    def compiling(self) -> Compiling | None:
        """The setting ``compile`` as a `Compiling`; None: nothing is compiled."""
        return read_compiling(self.compile)

    def _check_blocks(self) -> None:
        compiling, blocks = self.compiling, self.blocks
        if blocks is None:
            return
        expected = "a list of class names, such as [Block]"
        if isinstance(blocks, str) or not isinstance(blocks, Sequence):
            raise refuse_type("blocks", blocks, expected)
        if not blocks or not all(isinstance(name, str) for name in blocks):
            raise refuse("blocks", blocks, expected)
        is_compiled = compiling is not None and compiling.target == "blocks"
        if not is_compiled and self.strategy != "fsdp":
            expected = "null unless blocks are compiled or sharded"
            raise refuse("blocks", blocks, expected, "use compile=blocks or strategy=fsdp")


def choose_num_threads(device: Device, num_parameters: int | None) -> int:
    """Return the number of threads for operations on the CPU.

    Args:
        device: device settings of the run.
        num_parameters: number of parameters of the model; None: unknown.

    Returns:
        ``device.num_threads`` if it is not None. Otherwise, 1 for a model with fewer than 25,000 parameters on the CPU,
        and torch's number of threads for every other run.
    """
    if device.num_threads is not None:
        return device.num_threads
    is_small = num_parameters is not None and num_parameters < FEW_PARAMETERS
    return 1 if is_small and resolve_kind(device.kind) == "cpu" else torch.get_num_threads()


def open_device(device: str | torch.device | Device, local_rank: int | None = None) -> Accelerator:
    """Return the accelerator object for ``device`` on this machine.

    Args:
        device: `Device` settings, a value of ``Device.kind``, a torch device, or the name of a torch device, such as
            "cuda:1".
        local_rank: index of this process among the processes on this machine. The GPU with this index is used. None:
            this process trains alone, and torch's current GPU is used.

    Raises:
        SettingError: if the name is unknown, or the device is not available on this machine.
    """
    channels_last = isinstance(device, Device) and device.channels_last
    if isinstance(device, Device):
        device = device.kind
    elif not isinstance(device, str | torch.device):
        raise refuse_type("device", device, f"one of {', '.join(KINDS)}, or a torch device")
    if isinstance(device, str):
        device = resolve_kind(device)
    try:
        chosen = torch.device(_TORCH_TYPES.get(device, device) if isinstance(device, str) else device)
    except RuntimeError:
        remedy = did_you_mean(str(device), KINDS).strip()
        raise refuse("device", device, f"one of {', '.join(KINDS)}, or a torch device", remedy) from None
    if chosen.type == "cpu":
        return Cpu(channels_last=channels_last)
    if chosen.type not in ("cuda", "xpu", "mps"):
        raise refuse("device", str(device), f"one of {', '.join(KINDS)}")
    if not _is_available(chosen.type):
        what = "no GPU is" if chosen.type == "cuda" else f"{chosen.type.upper()} is not"
        raise refuse("device", str(device), "a device of this machine", f"{what} available: use cpu or auto")
    if chosen.type == "mps":
        return MpsGpu(channels_last=channels_last)
    module = torch.get_device_module(chosen)
    if local_rank is not None and chosen.index is None:
        if local_rank >= module.device_count():
            num_gpus = module.device_count()
            expected = f"{num_gpus} or fewer with kind=gpu, because this machine has {num_gpus}"
            raise refuse("num_processes", local_rank + 1, expected, f"use num_processes={num_gpus}")
        module.set_device(local_rank)
    index = module.current_device() if chosen.index is None else chosen.index
    return Gpu(torch.device(chosen.type, index), channels_last=channels_last)


def resolve_kind(kind: str) -> str:
    """Replace "auto" by the first available kind of gpu, xpu, mps and cpu. Return any other kind unchanged."""
    if kind != "auto":
        return kind
    return next(each for each in ("gpu", "xpu", "mps", "cpu") if _is_available(_TORCH_TYPES.get(each, each)))


def count_devices(kind: str) -> int | None:
    """Return the number of devices of a kind on this machine; None for the CPU, which has no such limit."""
    kind = resolve_kind(kind)
    if kind == "cpu":
        return None
    return 1 if kind == "mps" else int(torch.get_device_module(_TORCH_TYPES.get(kind, kind)).device_count())


def _is_available(torch_type: str) -> bool:
    """Return whether this machine has a device of the torch type "cpu", "cuda", "xpu" or "mps"."""
    if torch_type == "mps":
        return torch.backends.mps.is_available()
    return torch_type == "cpu" or bool(torch.get_device_module(torch_type).is_available())


def is_auto(device: str | torch.device | Device) -> bool:
    """Return whether ``device`` is "auto", or a `Device` of the kind "auto"."""
    return (device.kind if isinstance(device, Device) else device) == "auto"
