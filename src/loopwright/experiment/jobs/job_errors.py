"""`JobErrors`, which collects the errors in the settings of all jobs of a sweep and reports them on one line."""

from __future__ import annotations

from collections.abc import Sequence

from loopwright.errors import SettingError
from loopwright.experiment.console.messages import joined

_MOST_PROBLEMS = 10  # number of different problems that are shown
_MOST_RANGES = 5  # number of ranges of job numbers that are shown for one problem
_BETWEEN = joined(["", ""])


class JobErrors:
    """Errors of the jobs of a sweep. Equal errors are reported once, with the numbers of their jobs."""

    def __init__(self) -> None:
        self._found: dict[str, list[tuple[int, str]]] = {}  # by the message: numbers and labels of the jobs
        self._first: SettingError | None = None

    def add(self, number: int, label: str, error: SettingError) -> None:
        """Add an error of a job. An error that joins several problems is divided.

        Args:
            number: index of the job in its sweep, from 0.
            label: overrides that distinguish the job from the other jobs.
            error: error of the job.
        """
        self._first = self._first or error.with_traceback(None)
        problems = [str(error)] if error.problem else str(error).split(_BETWEEN)
        for problem in dict.fromkeys(problems):
            self._found.setdefault(problem, []).append((number, label))

    def raise_found(self, num_checked: int, num_jobs: int) -> None:
        """Raise one error for all errors that were added, if there are any.

        Args:
            num_checked: number of jobs that were checked. An error of all these jobs is reported without job numbers.
            num_jobs: number of jobs of the sweep. The error of a single job is raised unchanged.

        Raises:
            SettingError: the message is one line.
        """
        if self._first is None:
            return
        if num_jobs == 1:
            raise self._first
        num_left = num_jobs - num_checked
        is_common = {problem: len(jobs) == num_checked > 1 for problem, jobs in self._found.items()}
        lines = [
            problem if is_common[problem] else f"{problem} ({_place(jobs)})" for problem, jobs in self._found.items()
        ]
        text = joined(lines[:_MOST_PROBLEMS])
        if len(lines) > _MOST_PROBLEMS:
            text += f" and {len(lines) - _MOST_PROBLEMS} more"
        if num_left and not all(is_common.values()):
            text += f"; the other {num_left:,} jobs were not checked"
        setting = self._first.setting if self._first.problem else ""
        raise SettingError(setting, text.removeprefix(setting))


def _place(jobs: Sequence[tuple[int, str]]) -> str:
    """Return a text such as ``job 3: optimizer.lr=-1`` or ``jobs 0, 4-7``."""
    if len(jobs) == 1:
        return f"job {jobs[0][0]}: {jobs[0][1]}"
    ranges: list[tuple[int, int]] = []
    for number, _ in jobs:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    shown = ranges[:_MOST_RANGES]
    text = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in shown)
    num_left = len(jobs) - sum(last - first + 1 for first, last in shown)
    return f"jobs {text}" + (f" and {num_left:,} more" if num_left else "")
