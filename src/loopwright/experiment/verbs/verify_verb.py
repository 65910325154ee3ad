"""``loopwright verify WHAT``: a few steps of the user's own configuration, carried out in two ways and compared."""

from __future__ import annotations

from collections.abc import Sequence

from loopwright.device import deterministic_workspace
from loopwright.experiment.console.command_line import CommandLine
from loopwright.experiment.console.messages import tell
from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.jobs.check import check_jobs
from loopwright.experiment.jobs.job import Job
from loopwright.experiment.verify import verify_job


def verify(line: CommandLine, jobs: Sequence[Job], trust: Trust) -> int:
    """Print what was found, and return 0 where it is what was promised, else 1.

    Raises:
        SettingError: for a setting that cannot be used, and one with which there is nothing to compare.
    """
    assert line.what is not None
    with deterministic_workspace(is_needed=jobs[0].settings.deterministic):
        check_jobs(jobs, trust)
        verdict = verify_job(line.what, jobs[0], trust)
    tell(str(verdict))
    return 0 if verdict.is_equal else 1
