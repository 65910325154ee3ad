"""`verify`: what is carried out twice, and what is said of it.

::

    resume         straight                            |  cut in the middle, built anew and resumed
    validation     as the plan validates               |  with one more after each step
    workers        data read in this process           |  by two workers
    determinism    once                                |  once more; and which operations have no deterministic form
    accumulation   the gradients of whole batches      |  of the same batches, cut
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from loopwright.errors import SettingError, refuse
from loopwright.experiment.compose.composer import composing
from loopwright.experiment.gate.resolvers import lock_resolvers
from loopwright.experiment.gate.trust import Trust, read_trust
from loopwright.experiment.jobs.check import checked
from loopwright.experiment.jobs.job import Job, compose_jobs
from loopwright.experiment.jobs.settings import OVERFITS, callbacks_of
from loopwright.experiment.verify.accumulation import verify_accumulation
from loopwright.experiment.verify.both_ways import (
    verify_determinism,
    verify_resume,
    verify_validation,
    verify_workers,
)
from loopwright.experiment.verify.found import Found
from loopwright.experiment.verify.trials import Trials

NUM_STEPS = 8  # where no length is typed

VERIFIABLE: Mapping[str, Callable[[Trials], Found]] = MappingProxyType(
    {
        "resume": verify_resume,
        "accumulation": verify_accumulation,
        "validation": verify_validation,
        "workers": verify_workers,
        "determinism": verify_determinism,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What two runs of one configuration came to.

    Attributes:
        what: was verified.
        is_equal: whether they are what was promised: bitwise equal, of accumulation equal to rounding.
        did: what was carried out.
        said: the finding.
        explanations: of a difference; what is known to make one, and is there.
    """

    what: str
    is_equal: bool
    did: str
    said: str
    explanations: tuple[str, ...]

    def __str__(self) -> str:
        """A line for what was done, one for the finding, and one for each explanation."""
        return "\n".join([f"{self.what}: {self.did}", self.said, *(f"  {line}" for line in self.explanations)])


def verify(
    what: str, overrides: Sequence[str] = (), *, config_dir: str | None = None, trust: Sequence[str] = ()
) -> Verdict:
    """Run a few steps of a configuration in two ways, and compare; nothing is left behind.

    Args:
        what: one of `VERIFIABLE`.
        overrides: as on the command line, such as ``experiment=digits``. ``loop.max_steps`` or ``loop.num_steps`` among
            them is the number of steps that are compared, otherwise 8.
        config_dir: of configuration files of the user's own.
        trust: names of packages whose code may be run.

    Raises:
        SettingError: for a wrong setting, and one with which there is nothing to compare.
    """
    if what not in VERIFIABLE:
        raise refuse("what", what, f"one of {', '.join(VERIFIABLE)}")
    lock_resolvers()
    trusted = read_trust(trust, Path.cwd())
    with composing(config_dir) as composer:
        (job,) = compose_jobs(composer, [list(overrides)], trusted)
    return verify_job(what, job, trusted)


def verify_job(what: str, job: Job, trust: Trust) -> Verdict:
    """Do the same for a job that was composed.

    Raises:
        SettingError: for a wrong setting, and one with which there is nothing to compare.
    """
    config = job.config
    if config["loop"].get("_target_") not in ("loopwright.TrainingLoop", "loopwright.loop.TrainingLoop"):
        raise SettingError("loop", ": expected a training loop; verify compares what is trained.")
    overfitting = callbacks_of(config, OVERFITS)
    if overfitting:
        raise SettingError(
            f"callbacks.{overfitting[0]}", ": trains on one micro-batch; verify compares runs on all data."
        )
    if job.settings.ckpt_path is not None:
        raise SettingError("ckpt_path", f"={job.settings.ckpt_path!r}: expected null; verify begins at step 0.")
    with checked(job, trust) as ready:
        has_validation = ready.objects.data.val is not None
        trials = Trials(ready.job, trust, _num_steps(job), has_validation=has_validation)
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
    """How many steps to compare: as many as were typed."""
    typed = {word.lstrip("+").partition("=")[0] for word in job.overrides}
    loop: Mapping[str, Any] = job.config["loop"]
    given = [loop[name] for name in ("num_steps", "max_steps") if f"loop.{name}" in typed and loop.get(name)]
    return int(given[0]) if given else NUM_STEPS
