"""`World`, the number of processes and the index of this process, and `read_world`, which reads the environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from loopwright.errors import SettingError, refuse

_MAX_PROCESSES = 1 << 20
_FIRST_SLURM_PORT, _NUM_SLURM_PORTS = 15_000, 20_000
_DIGITS = re.compile(r"\d{1,7}")


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The processes that a launcher has started, and the index of this process among them.

    Attributes:
        launcher: program that started the processes: "torchrun", "srun", or "environment" for another program that sets
            the environment variables of torch.distributed. None: no launcher started this process.
        world_size: number of processes.
        rank: index of this process, from 0.
        local_world_size: number of processes on this machine.
        local_rank: index of this process among the processes on this machine, from 0.
        address: host and port at which process 0 listens for the other processes; None if there is one process.
    """

    launcher: str | None = None
    world_size: int = 1
    rank: int = 0
    local_world_size: int = 1
    local_rank: int = 0
    address: tuple[str, int] | None = None


def read_world(environ: Mapping[str, str]) -> World:
    """Read the number of processes and the index of this process from the environment variables of a launcher.

    torchrun sets ``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``, ``LOCAL_WORLD_SIZE``, ``MASTER_ADDR`` and ``MASTER_PORT``.
    srun sets ``SLURM_STEP_ID``, ``SLURM_NTASKS``, ``SLURM_PROCID`` and ``SLURM_LOCALID``. Without
    ``SLURM_STEP_ID``, the other variables of Slurm are ignored, because a batch script without srun is one process.

    Args:
        environ: environment variables by name.

    Raises:
        SettingError: if a variable of the launcher is missing or has an invalid value.
    """
    if environ.get("WORLD_SIZE", "1") != "1":
        launcher = "torchrun" if "TORCHELASTIC_RUN_ID" in environ else "environment"
        return _of_torch(environ, launcher)
    if "SLURM_STEP_ID" in environ and environ.get("SLURM_NTASKS", "1") != "1":
        return _of_slurm(environ)
    return World()


def _of_torch(environ: Mapping[str, str], launcher: str) -> World:
    world_size = _number(environ, "WORLD_SIZE", 1, _MAX_PROCESSES)
    rank = _number(environ, "RANK", 0, world_size - 1)
    local_rank = _number(environ, "LOCAL_RANK", 0, rank, default=rank)
    return World(
        launcher=launcher,
        world_size=world_size,
        rank=rank,
        local_world_size=_number(environ, "LOCAL_WORLD_SIZE", 1, world_size, default=world_size),
        local_rank=local_rank,
        address=(_text(environ, "MASTER_ADDR"), _number(environ, "MASTER_PORT", 1, 65_535)),
    )


def _of_slurm(environ: Mapping[str, str]) -> World:
    world_size = _number(environ, "SLURM_NTASKS", 1, _MAX_PROCESSES)
    rank = _number(environ, "SLURM_PROCID", 0, world_size - 1)
    # SLURM_NTASKS_PER_NODE is set only with --ntasks-per-node. SLURM_STEP_TASKS_PER_NODE is a string such as "4(x2),3".
    per_node = re.match(r"\d+", environ.get("SLURM_STEP_TASKS_PER_NODE", ""))
    job = environ.get("SLURM_JOB_ID", "0")
    port = _FIRST_SLURM_PORT + int(job) % _NUM_SLURM_PORTS if job.isascii() and job.isdigit() else _FIRST_SLURM_PORT
    return World(
        launcher="srun",
        world_size=world_size,
        rank=rank,
        local_world_size=int(per_node[0]) if per_node else world_size,
        local_rank=_number(environ, "SLURM_LOCALID", 0, rank),
        address=(first_host(_text(environ, "SLURM_STEP_NODELIST")), port),
    )


def first_host(hosts: str) -> str:
    """Return the first host name in a host list of Slurm, such as ``node3`` for ``node[3-5,9],other1``.

    Raises:
        SettingError: if ``hosts`` is not a valid host list.
    """
    match = re.match(r"([A-Za-z0-9._-]+)(?:\[(\d+)[^\]]*\]([A-Za-z0-9._-]*))?(?=,|$)", hosts)
    if match is None:
        raise refuse("SLURM_STEP_NODELIST", hosts, "host names, such as node[1-4]")
    name, number, rest = match.groups()
    return str(name) if number is None else f"{name}{number}{rest}"


def _text(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name, "")
    if not value:
        raise refuse(name, value, "a host, which the launcher of several processes sets")
    return value


def _number(environ: Mapping[str, str], name: str, least: int, most: int, *, default: int | None = None) -> int:
    given = environ.get(name)
    if given is None and default is not None:
        return default
    expected = f"expected a whole number from {least} to {most}, which the launcher of several processes sets"
    if given is None:
        raise SettingError(name, f" is not set: {expected}.")
    if not _DIGITS.fullmatch(given) or not least <= int(given) <= most:
        raise SettingError(name, f"={given!r}: {expected}.")
    return int(given)
