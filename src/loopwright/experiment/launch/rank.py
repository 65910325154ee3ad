"""Functions for one process of a distributed run: join the other processes, run, and end without blocking them."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from loopwright.device import Alone, Device, Together, is_peer_error, open_device, read_world
from loopwright.errors import CheckpointError, SettingError, refuse
from loopwright.experiment.console.messages import complain, one_line_of
from loopwright.experiment.gate.instantiate import instantiate
from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.jobs.job import Job
from loopwright.experiment.launch.agent import DIRECTORY, QUIET
from loopwright.experiment.runs.causes import (
    FOLDER,
    begin,
    find_cause,
    read_end,
    remove_files,
    write_cause,
    write_end,
)
from loopwright.experiment.runs.ending import RunRequest
from loopwright.experiment.runs.run import carry_out, follow, opened
from loopwright.protocols import Ranks
from loopwright.seeding import draw_seed

_POLL_SECONDS = 0.25
_END_SECONDS = 8.0  # wait before this process exits after another process has failed
_RECORD_SECONDS = 60.0  # longest wait of other processes until process 0 has recorded the end of the run


@contextmanager
def joined(device: Any, trust: Trust) -> Iterator[Ranks]:
    """Join the processes that a launcher has started. The context yields the `Ranks` of this process.

    Each process uses an equal share of torch's CPU threads.

    Args:
        device: section ``device`` of the configuration.
        trust: packages that the user trusts.

    Raises:
        SettingError: if a setting of the device or an environment variable of the launcher is invalid.
        PeerError: if another process ends before all processes have joined.
    """
    world = read_world(os.environ)
    if world.world_size == 1:
        yield Alone()
        return
    started_in = os.environ.get(DIRECTORY)
    if started_in is not None:
        _begin_own(Path(started_in), world.rank)
    if world.rank:
        warnings.simplefilter("ignore")  # process 0 prints the same warnings
    settings = instantiate(device, trust, "device")
    assert isinstance(settings, Device), "the section device builds a Device"
    accelerator = open_device(settings, world.local_rank)
    torch.set_num_threads(max(1, torch.get_num_threads() // world.local_world_size))
    yield Together(world, accelerator.torch_device.type, settings.waits.timeout_seconds)


def is_own_launch() -> bool:
    """Return True if Loopwright started the processes; False if another launcher, such as torchrun, started them."""
    return DIRECTORY in os.environ


def directory_of_launch(ranks: Ranks, make: Callable[[], Path]) -> Path:
    """Return the run directory, which all processes share.

    If Loopwright started the processes, the directory already exists. Otherwise, process 0 calls ``make``.
    """
    if ranks.world_size > 1 and is_own_launch():
        return Path(os.environ[DIRECTORY])
    return Path(ranks.share_bytes(None if ranks.rank else os.fsencode(make())).decode())


def as_ranked(job: Job, ranks: Ranks) -> Job:
    """Return a copy of ``job`` with its seed and the number of processes on this machine.

    If the configuration sets no seed, all processes get the seed that process 0 draws. For a run of one process,
    ``job`` is returned unchanged.
    """
    if ranks.world_size == 1:
        return job
    seed = job.settings.seed
    if seed is None:
        seed = int(ranks.share_bytes(None if ranks.rank else str(draw_seed()).encode()))
    world, typed = read_world(os.environ), job.config["device"].get("num_processes", 1)
    if typed not in (1, world.local_world_size):
        started = f"{world.local_world_size} or none, as {world.launcher} started {world.local_world_size}"
        raise refuse("device.num_processes", typed, f"{started} on this machine", "leave it out")
    device = {**job.config["device"], "num_processes": world.local_world_size}
    config = {**job.config, "seed": seed, "device": device}
    return replace(job, config=config, settings=replace(job.settings, seed=seed))


def run_rank(request: RunRequest, ranks: Ranks) -> int:
    """Carry out a run as one of several processes. Return the exit code of the run.

    A process other than process 0 exits here, without the usual end of the interpreter: threads of torch's process
    group can abort a process that ends while they run, and the launcher would then end process 0, which still writes
    the results. A process that Loopwright started exits with exit code 0. After any other exit code, torch's launcher
    would end the other processes before process 0 has recorded the end of the run.
    """
    if not is_own_launch():
        begin(request.directory, ranks.rank)
    code = _lead(request) if not ranks.rank else _follow(request, ranks)
    if ranks.rank or is_own_launch():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0 if is_own_launch() else code)
    return code


def _lead(request: RunRequest) -> int:
    directory = request.directory
    try:
        request = replace(request, is_quiet=request.is_quiet or os.environ.get(QUIET) == "1")
        with opened(directory, request.trust):
            code = carry_out(request).exit_code
    except (SettingError, CheckpointError) as error:
        complain(error)
        code = 3 if isinstance(error, CheckpointError) else 2
        write_cause(directory, 0, error, code)
    except (KeyboardInterrupt, SystemExit) as exit:
        code = 130 if isinstance(exit, KeyboardInterrupt) else 143
    write_end(directory, code)
    if not code and not is_own_launch():
        remove_files(directory)
    return code


def _follow(request: RunRequest, ranks: Ranks) -> int:
    directory = request.directory
    try:
        follow(request)
        return 0
    except (KeyboardInterrupt, SystemExit) as exit:
        code = 130 if isinstance(exit, KeyboardInterrupt) else 143
    except BaseException as error:  # noqa: BLE001  (the other processes must see the cause)
        code = 3 if isinstance(error, CheckpointError) else 2 if isinstance(error, SettingError) else 1
        write_cause(directory, ranks.rank, error, code)
        if not is_peer_error(error):
            complain(f"rank {ranks.rank}: {one_line_of(error)}")
        ranks.leave()
    if is_own_launch():
        return code
    deadline = time.monotonic() + _RECORD_SECONDS
    while (ended := read_end(directory)) is None and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    return code if ended is None else ended or code


def _begin_own(directory: Path, rank: int) -> None:
    """Write the ID of this process, redirect its output to a file, and watch the other processes.

    Called in processes that Loopwright started. The output of process 0 is not redirected.
    """
    begin(directory, rank)
    if rank:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        log = os.open(directory / FOLDER / f"rank-{rank}.log", flags, 0o666)
        os.dup2(log, 1)
        os.dup2(log, 2)
    threading.Thread(target=_watch, args=(directory, rank, os.getppid()), name="watch", daemon=True).start()


def _watch(directory: Path, rank: int, parent: int) -> None:
    """End this process after another process has failed, or after the parent of this process has ended."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1})
    while os.getppid() == parent and find_cause(directory, without=rank) is None:
        time.sleep(_POLL_SECONDS)
    time.sleep(_END_SECONDS)
    os._exit(1)
