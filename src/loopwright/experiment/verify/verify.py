"""`verify`: compares two runs of one configuration to check a property of Loopwright.

The properties and their two runs are::

    property       first run                           |  second run
    resume         without interruption                |  interrupted in the middle, rebuilt and resumed
    validation     only the planned validations        |  an additional validation after each step
    workers        data read in this process           |  data read by two workers
    determinism    as configured                       |  as configured, again
    accumulation   gradients of whole batches          |  gradients of the same batches, cut into micro-batches
    ranks          in one process                      |  in two processes, or in device.num_processes processes

For determinism, `verify` also lists the operations for which torch has no deterministic implementation.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from loopwright.device import read_world
from loopwright.errors import SettingError, refuse
from loopwright.experiment.compose.composer import composing
from loopwright.experiment.gate.resolvers import lock_resolvers
from loopwright.experiment.gate.trust import Trust, read_trust
from loopwright.experiment.jobs.check import checked
from loopwright.experiment.jobs.job import Job, compose_jobs
from loopwright.experiment.jobs.job_settings import OVERFITS, callbacks_of
from loopwright.experiment.jobs.typed_lengths import typed_lengths
from loopwright.experiment.launch.rank import is_own_launch
from loopwright.experiment.verify.accumulation import verify_accumulation
from loopwright.experiment.verify.both_ways import (
    verify_determinism,
    verify_resume,
    verify_validation,
    verify_workers,
)
from loopwright.experiment.verify.found import Found
from loopwright.experiment.verify.rank_side import take_part
from loopwright.experiment.verify.ranks import verify_ranks
from loopwright.experiment.verify.trials import Trials

_NUM_PROCESSES = 2  # number of processes, unless the configuration asks for more
NUM_STEPS = 8  # number of steps to compare, unless the user typed loop.num_steps or loop.max_steps

VERIFIABLE: Mapping[str, Callable[[Trials], Found]] = MappingProxyType(
    {
        "resume": verify_resume,
        "accumulation": verify_accumulation,
        "validation": verify_validation,
        "workers": verify_workers,
        "determinism": verify_determinism,
        "ranks": verify_ranks,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Result of the comparison of two runs of one configuration.

    Attributes:
        what: name of the property that was checked, one of the keys of `VERIFIABLE`.
        is_equal: whether the property holds: the two runs are bitwise equal or, for accumulation and ranks, equal up to
            rounding. For determinism, every operation must also have a deterministic implementation.
        did: description of the two runs.
        said: description of the result in one line.
        explanations: possible causes of a difference, followed by remarks on the comparison.
    """

    what: str
    is_equal: bool
    did: str
    said: str
    explanations: tuple[str, ...]

    def __str__(self) -> str:
        """Return a line for the two runs, a line for the result, and a line for each explanation."""
        return "\n".join([f"{self.what}: {self.did}", self.said, *(f"  {line}" for line in self.explanations)])


def verify(
    what: str, overrides: Sequence[str] = (), *, config_dir: str | None = None, trust: Sequence[str] = ()
) -> Verdict:
    """Carry out two short runs of a configuration, and compare their results. All files are temporary.

    Args:
        what: name of the property to check, one of the keys of `VERIFIABLE`.
        overrides: overrides as on the command line, such as ``experiment=digits``. The number of steps to compare is
            the value of ``loop.num_steps`` or ``loop.max_steps`` in these overrides, otherwise 8.
        config_dir: directory with configuration files of the user, as for ``--config-dir``; None to use only the
            configuration files of Loopwright.
        trust: dotted names of packages whose code may be run.

    Raises:
        SettingError: if a setting is wrong, or if the configuration has no training steps to compare.
    """
    if what not in VERIFIABLE:
        raise refuse("what", what, f"one of {', '.join(VERIFIABLE)}")
    lock_resolvers()
    trusted = read_trust(trust, Path.cwd())
    with composing(config_dir) as composer:
        (job,) = compose_jobs(composer, [list(overrides)], trusted)
    return verify_job(what, job, trusted, config_dir)


def verify_job(what: str, job: Job, trust: Trust, config_dir: str | None = None) -> Verdict:
    """Run a few steps of a composed job in two ways, and compare the two runs as `verify` does.

    If this process is one of the processes that ``verify ranks`` has started, it trains its part of the second run, and
    exits.

    Raises:
        SettingError: if a setting is wrong, or makes the comparison impossible (such as ``ckpt_path``).
    """
    config = job.config
    if config["loop"].get("_target_") not in ("loopwright.TrainingLoop", "loopwright.loop.TrainingLoop"):
        raise SettingError("loop", ": expected a training loop; verify compares training steps.")
    overfitting = callbacks_of(config, OVERFITS)
    if overfitting:
        raise SettingError(
            f"callbacks.{overfitting[0]}", ": trains on one micro-batch; verify needs all training data."
        )
    if job.settings.ckpt_path is not None:
        raise SettingError("ckpt_path", f"={job.settings.ckpt_path!r}: expected null; verify starts at step 0.")
    if what == "ranks":
        job = _in_processes(job)
        if is_own_launch():
            take_part(job, trust, _num_steps(job))
    with checked(job, trust) as ready:
        trials = Trials(ready.job, trust, _num_steps(job), ready.objects.data, config_dir=config_dir)
        del ready  # each trial builds its own objects
        found = VERIFIABLE[what](trials)
    return Verdict(
        what=what,
        is_equal=found.is_equal,
        did=found.did,
        said=found.said,
        explanations=tuple(f"may be explained by: {line}" for line in found.explanations) + tuple(found.remarks),
    )


def _num_steps(job: Job) -> int:
    """Return the number of steps to compare: the length that the user typed, or else `NUM_STEPS`."""
    loop: Mapping[str, Any] = job.config["loop"]
    given = [loop[name] for name in typed_lengths(job.overrides) if name != "num_epochs" and loop.get(name)]
    return int(given[0]) if given else NUM_STEPS


def _in_processes(job: Job) -> Job:
    """Return a job that logs every step, and that asks for two processes unless it asks for more.

    Raises:
        SettingError: if torchrun or another launcher has started this process.
    """
    world = read_world(os.environ)
    if world.world_size > 1 and not is_own_launch():
        raise SettingError("verify ranks", f": expected one process; start it without {world.launcher}.")
    if job.config["device"].get("strategy", "ddp") != "ddp":
        raise refuse("device.strategy", job.config["device"]["strategy"], "ddp for verify ranks")
    device = job.config["device"]
    num_processes = max(_NUM_PROCESSES, device.get("num_processes") or 1)
    config = {**job.config, "device": {**device, "num_processes": num_processes}}
    return replace(job, config=config, settings=replace(job.settings, log_every_n_steps=1))
