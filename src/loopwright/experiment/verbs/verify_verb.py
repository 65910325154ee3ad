"""``loopwright verify WHAT``: run a few steps of a configuration in two ways, and compare the two runs."""

from __future__ import annotations

from loopwright.experiment.console.command_line import CommandLine
from loopwright.experiment.console.messages import tell
from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.jobs.job import Job
from loopwright.experiment.verify.verify import verify_job


def verify(line: CommandLine, job: Job, trust: Trust) -> int:
    """Print the verdict. Return 0 if the two runs are as equal as promised, otherwise 1.

    Raises:
        SettingError: for a wrong setting, and for a configuration in which there is nothing to compare.
    """
    assert line.what is not None
    verdict = verify_job(line.what, job, trust)
    tell(str(verdict))
    return 0 if verdict.is_equal else 1
