"""`SweepSettings`: the checked node ``sweep`` of a configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from loopwright.errors import SettingError, check_count, did_you_mean, refuse, refuse_type

LAUNCHERS = ("auto", "inline", "process", "slurm", "none")
SEARCHES = ("auto", "grid", "random", "tpe")
PRUNERS = ("none", "median", "percentile", "hyperband")
EXECUTORS = ("slurm", "local")
# Settings that have an effect only if each job is a process, with their accepted values for launcher=inline.
_INLINE: Mapping[str, tuple[Any, ...]] = {
    "num_parallel": (1, "auto"),
    "devices": ("auto",),
    "jobs_per_device": (1,),
    "memory_gib": (None,),
}
_POSITIVE = ("timeout_minutes", "memory_gib", "deadline_minutes")


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmSettings:
    """Settings of the launcher ``slurm``.

    Args:
        executor: "slurm", or "local" for processes on this machine.
        partition, account: names that Slurm knows; None: its defaults.
        timeout_minutes: time limit of a job. A job that reaches it saves and is queued again.
        gpus, cpus: number of each for a job.
        memory_gib: memory of a job, in GiB.
        max_parallel: largest number of jobs at a time.
        max_requeues: how often a job may be queued again.
        setup: shell commands that run before a job.
    """

    executor: str = "slurm"
    partition: str | None = None
    account: str | None = None
    timeout_minutes: int = 60
    gpus: int = 0
    cpus: int = 4
    memory_gib: float = 16
    max_parallel: int = 64
    max_requeues: int = 20
    setup: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Check the values."""
        _check_choice("slurm.executor", self.executor, EXECUTORS)
        for name in ("partition", "account"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value):
                raise refuse_type(f"slurm.{name}", value, "a name, or null")
        for name, least in (("timeout_minutes", 1), ("cpus", 1), ("max_parallel", 1), ("gpus", 0), ("max_requeues", 0)):
            check_count(f"slurm.{name}", getattr(self, name), least=least)
        _check_number("slurm.memory_gib", self.memory_gib)
        if not _is_words(self.setup):
            raise refuse_type("slurm.setup", self.setup, "a list of shell commands")


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepSettings:
    """Settings of a sweep. ``conf/sweep/default.yaml`` describes each of them.

    Raises:
        SettingError: for a value that is not accepted.
    """

    launcher: str = "auto"
    num_parallel: int | str = 1
    devices: Any = "auto"
    jobs_per_device: int = 1
    timeout_minutes: float | None = None
    grace_seconds: float = 60
    memory_gib: float | None = None
    deadline_minutes: float | None = None
    on_failure: str = "continue"
    max_failures: int | None = None
    max_attempts: int = 1
    space: Mapping[str, str] = field(default_factory=dict)
    search: str = "auto"
    num_proposals: int | None = None
    seed: int = 0
    pruner: str = "none"
    baseline: Sequence[str] | None = None
    columns: Sequence[str] = ()
    slurm: SlurmSettings = field(default_factory=SlurmSettings)

    def __post_init__(self) -> None:
        """Check the values."""
        _check_choice("launcher", self.launcher, LAUNCHERS)
        _check_choice("search", self.search, SEARCHES)
        _check_choice("pruner", self.pruner, PRUNERS)
        _check_choice("on_failure", self.on_failure, ("continue", "stop"))
        if self.num_parallel != "auto":
            check_count("num_parallel", self.num_parallel)
        for name, least in (("jobs_per_device", 1), ("max_attempts", 1), ("seed", 0)):
            check_count(name, getattr(self, name), least=least)
        for name, least in (("max_failures", 0), ("num_proposals", 1)):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name), least=least)
        for name in _POSITIVE:
            if getattr(self, name) is not None:
                _check_number(name, getattr(self, name))
        _check_number("grace_seconds", self.grace_seconds)
        self._check_devices()
        if self.launcher == "inline" and not self.can_run_inline:
            name = next(name for name, plain in _INLINE.items() if getattr(self, name) not in plain)
            accepted = "null" if _INLINE[name][0] is None else _INLINE[name][0]
            remedy = "use sweep.launcher=process"
            raise refuse(name, getattr(self, name), f"{accepted} with launcher=inline", remedy)
        if not isinstance(self.space, Mapping) or not all(isinstance(key, str) for key in self.space):
            raise refuse_type("space", self.space, "a mapping of settings to values in the grammar of -m")
        for name in ("baseline", "columns"):
            value = getattr(self, name)
            if not _is_words(value) and not (name == "baseline" and value is None):
                raise refuse_type(name, value, "a list of words")
        if self.is_search and self.launcher == "none":
            raise refuse("launcher", self.launcher, "another launcher with a search", "its jobs follow from results")
        if self.is_search and self.num_proposals is None:
            raise SettingError("num_proposals", f": expected a number of groups with search={self.search}.")
        if not self.is_search and self.num_proposals is not None:
            raise refuse("num_proposals", self.num_proposals, "null with a grid", "use search=random or search=tpe")
        if not isinstance(self.slurm, SlurmSettings):
            object.__setattr__(self, "slurm", _read(SlurmSettings, self.slurm, "slurm"))

    @property
    def can_run_inline(self) -> bool:
        """Whether no setting needs a process for each job."""
        return all(getattr(self, name) in plain for name, plain in _INLINE.items())

    @property
    def uses_processes(self) -> bool:
        """Whether jobs on a CPU run in processes of their own."""
        is_parallel = not self.can_run_inline or self.num_parallel == "auto"
        return self.launcher == "process" or (self.launcher == "auto" and is_parallel)

    @property
    def are_jobs_apart(self) -> bool:
        """Whether this process can do without torch: no job runs in it, and it composes no job of a search."""
        return self.uses_processes and not self.is_search

    @property
    def is_search(self) -> bool:
        """Whether proposals are drawn from a space; otherwise, all values of a grid are run."""
        return self.search in ("random", "tpe")

    def as_json(self) -> dict[str, Any]:
        """Return the settings as mappings, lists, words and numbers."""
        return {**asdict(self), "columns": list(self.columns)}

    def _check_devices(self) -> None:
        """Accept "auto", or a list whose entries are devices or lists of devices."""
        expected = "auto, or a list of devices such as [0, 1] or [[0, 1], [2, 3]]"
        if self.devices == "auto":
            return
        if not isinstance(self.devices, list) or not self.devices:
            raise refuse_type("devices", self.devices, expected)
        for entry in self.devices:
            for device in entry if isinstance(entry, list) else [entry]:
                if isinstance(device, bool) or not isinstance(device, int | str) or device == "":
                    raise refuse("devices", self.devices, expected)


def read_sweep_settings(node: Mapping[str, Any]) -> SweepSettings:
    """Check the resolved node ``sweep`` of a configuration.

    Raises:
        SettingError: for an unknown name or a value that is not accepted. The name begins with ``sweep.``.
    """
    try:
        settings: SweepSettings = _read(SweepSettings, node, "")
        return settings
    except SettingError as error:
        raise error.under("sweep") from None


def _read(kind: Any, node: Any, name: str) -> Any:
    if not isinstance(node, Mapping):
        raise refuse_type(name, node, "a mapping")
    known = [each.name for each in fields(kind)]
    for key in node:
        if key not in known:
            path = f"{name}.{key}" if name else str(key)
            raise SettingError(path, f": no such setting.{did_you_mean(str(key), known)}")
    return kind(**node)


def _is_words(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(each, str) for each in value)


def _check_number(name: str, value: object) -> None:
    expected = "a number above 0"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise refuse_type(name, value, expected)
    if not 0 < value < math.inf:
        raise refuse(name, value, expected)


def _check_choice(name: str, value: object, known: Sequence[str]) -> None:
    if value not in known:
        raise refuse(
            name, value, " or ".join([", ".join(known[:-1]), known[-1]]), did_you_mean(str(value), known).strip()
        )
