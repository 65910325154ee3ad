"""Functions that read the results of the jobs of a sweep, write ``sweep.json`` and print a table of the results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from loopwright.experiment.console.messages import tell
from loopwright.experiment.console.tables import print_table, show
from loopwright.experiment.jobs.job import Job
from loopwright.loggers.append_only import plain
from loopwright.records import COMPLETE, read_summary
from loopwright.regular_files import replace_file

_NOT_RUN: Mapping[str, Any] = {"state": "not run", "objective": None, "error": None}

Results = Sequence[Mapping[str, Any]]


def job_results(directory: Path, jobs: Sequence[Job]) -> Results:
    """Read the state, the objective and the error of each job from its run directory, in the order of the jobs."""
    summaries = [read_summary(directory / str(job.number)) or _NOT_RUN for job in jobs]
    return [{key: summary[key] for key in _NOT_RUN} for summary in summaries]


def write_sweep(directory: Path, jobs: Sequence[Job], results: Results) -> None:
    """Write the state, overrides, objective and error of each job to ``sweep.json``, in the order of the jobs."""
    entries = [{**result, "overrides": list(job.overrides)} for job, result in zip(jobs, results, strict=True)]
    text = json.dumps(plain({"jobs": entries}), indent=2, allow_nan=False) + "\n"
    replace_file(directory / "sweep.json", text.encode())


def print_sweep(jobs: Sequence[Job], results: Results, directory: Path) -> None:
    """Print a table with the number, overrides, state and objective of each job. Print errors below the table."""
    table = Table("job", "overrides", "state")
    table.add_column(jobs[0].settings.objective, justify="right")
    for job, result in zip(jobs, results, strict=True):
        value = result["objective"]
        table.add_row(str(job.number), job.label, result["state"], "nan" if value is None else show(value))
    print_table(table)
    for job, result in zip(jobs, results, strict=True):
        if result["error"]:
            tell(f"job {job.number}: {result['error']}")
    num_done = sum(result["state"] in COMPLETE for result in results)
    tell(f"Done: {num_done} of {len(jobs)} jobs completed.\nSweep directory: {directory}")
