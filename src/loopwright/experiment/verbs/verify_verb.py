"""The command ``loopwright verify WHAT``, which carries out two short runs of a job and compares their results."""

from __future__ import annotations

from loopwright.experiment.console.command_line import CommandLine
from loopwright.experiment.console.messages import tell
from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.jobs.job import Job
from loopwright.experiment.verify.verify import verify_job


def verify(line: CommandLine, job: Job, trust: Trust) -> int:
    """Verify the property ``line.what`` by two short runs of a job, and print the verdict.

    Returns:
        0 if the runs are bitwise equal or, for ``accumulation`` and ``ranks``, equal up to rounding; otherwise 1.

    Raises:
        SettingError: for a wrong setting, and for a configuration with which the comparison is not possible.
    """
    assert line.what is not None
    verdict = verify_job(line.what, job, trust, line.config_dir)
    tell(str(verdict))
    return 0 if verdict.is_equal else 1
