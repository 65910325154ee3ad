"""``loopwright verify WHAT``: run a few steps of the user's own configuration in two ways, and compare."""

from __future__ import annotations

from loopwright.experiment.console.command_line import CommandLine
from loopwright.experiment.console.messages import tell
from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.jobs.job import Job
from loopwright.experiment.verify.verify import verify_job


def verify(line: CommandLine, job: Job, trust: Trust) -> int:
    """Print the verdict; return 0 if the runs agree as promised, else 1.

    Raises:
        SettingError: for a setting that cannot be used, and one with which there is nothing to compare.
    """
    assert line.what is not None
    verdict = verify_job(line.what, job, trust)
    tell(str(verdict))
    return 0 if verdict.is_equal else 1
