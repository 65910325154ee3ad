"""``loopwright plan``: what a run would do, printed, and nothing run."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from loopwright.experiment.console.command_line import CommandLine
from loopwright.experiment.console.messages import tell
from loopwright.experiment.console.tables import print_table
from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.jobs.check import check_jobs
from loopwright.experiment.jobs.job import Job
from loopwright.experiment.jobs.job_plan import Counts, describe_job
from loopwright.experiment.jobs.objects import build_data
from loopwright.plan import Plan, count_samples


def print_plans(line: CommandLine, jobs: Sequence[Job], trust: Trust) -> int:
    """Print the plan of a job; of a sweep a table with the effective batch and the samples of each job.

    Raises:
        SettingError: as for a run.
    """
    check_jobs(jobs, trust)
    described = [describe_job(job.config, build_data(job.config["data"], trust), trust) for job in jobs]
    if not line.multirun:
        tell(described[0][0])
        return 0
    table = Table("job", "overrides")
    for column in ("steps", "micro-batches", "effective batch", "samples"):
        table.add_column(column, justify="right")
    for job, (_, plan, counts) in zip(jobs, described, strict=True):
        table.add_row(str(job.number), job.label, *_cells(plan, counts))
    print_table(table)
    return 0


def _cells(plan: Plan | None, counts: Counts) -> list[str]:
    if plan is None:
        return ["0", "0", "", "0"]
    size = counts.batch_size
    effective = "unknown" if size is None else f"{size * plan.grad_accum_steps:,}"
    samples = "unknown" if size is None else count_samples(plan, size, counts.num_samples)
    return [f"{plan.total_steps:,}", f"{plan.total_micro_batches:,}", effective, samples]
