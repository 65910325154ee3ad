"""`make_strategy`, which joins the other processes of a run and returns the strategy that the settings select."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from loopwright.device.device import Device
from loopwright.device.ranks import Together
from loopwright.device.strategies.replicated import Replicated
from loopwright.device.strategies.single import Single
from loopwright.device.world import World
from loopwright.errors import refuse
from loopwright.protocols import Strategy

if TYPE_CHECKING:
    from loopwright.device.strategies.sharded import Sharded


def make_strategy(settings: Device, world: World, device_type: str) -> Strategy:
    """Return the strategy that trains the model. If there are several processes, first join their process group.

    Args:
        settings: device settings of the run.
        world: number of processes and index of this process.
        device_type: type of the device in torch, such as "cuda".

    Raises:
        SettingError: if ``settings.num_processes`` differs from the number of processes that were started, or for
            several processes on MPS.
        PeerError: if this process cannot join the process group.
    """
    if world.world_size == 1:
        if settings.num_processes > 1:
            started = f"torchrun --nproc-per-node={settings.num_processes}"
            remedy = f"start the script with {started}, or use the command loopwright"
            raise refuse("num_processes", settings.num_processes, "1, because this process was started alone", remedy)
        return Single(settings)
    if settings.num_processes not in (1, world.local_world_size):
        started = f"{world.launcher} started {world.local_world_size} on this machine"
        expected = f"{world.local_world_size}, because {started}"
        raise refuse("num_processes", settings.num_processes, expected, "leave it out")
    if device_type == "mps":
        raise refuse("kind", "mps", "cpu, gpu or xpu in several processes", "use kind=cpu")
    ranks = Together(world, device_type, settings.waits.timeout_seconds)
    if settings.strategy == "ddp":
        return Replicated(settings, ranks)
    # Its import of torch.distributed.fsdp takes 0.5 s, so runs with other strategies do not import it.
    sharded: type[Sharded] = import_module("loopwright.device.strategies.sharded").Sharded
    return sharded(settings, ranks)
