"""The command ``loopwright plan``, which prints the plan of a run and starts no run."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from loopwright.experiment.console.messages import tell
from loopwright.experiment.console.tables import print_table
from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.jobs.check import check_each, checked
from loopwright.experiment.jobs.job import Job
from loopwright.experiment.jobs.job_plan import JobPlan
from loopwright.experiment.sweep.read_sweep import Sweep
from loopwright.experiment.sweep.search.describe import search_text
from loopwright.plan import count_samples


def print_plans(sweep: Sweep | None, jobs: Sequence[Job], trust: Trust) -> int:
    """Print the plan of a job. For a sweep, print a table with one row per job. For a search, print its space.

    Raises:
        SettingError: for a wrong setting, as in a run.
        CheckpointError: for a checkpoint that cannot be used, as in a run.
    """
    if sweep is None:
        with checked(jobs[0], trust) as ready:
            tell(ready.plan.text)
        return 0
    if sweep.settings.is_search:
        for _, planned in check_each(jobs[:1], trust, builds_trusted=True):
            assert planned is not None, "every section is built"
            space = search_text(sweep, jobs[0].settings.objective_mode)
            tell(f"{space}\n\nA job with the first values\n{planned.text}")
        return 0
    table = Table("job", "overrides")
    for column in ("steps", "micro-batches", "effective batch", "samples"):
        table.add_column(column, justify="right")
    for job, planned in check_each(jobs, trust, builds_trusted=True):
        assert planned is not None, "every section is built"
        table.add_row(str(job.number), job.label, *_cells(planned))
    print_table(table)
    return 0


def _cells(planned: JobPlan) -> list[str]:
    plan, size = planned.plan, planned.batch_size
    if plan is None:
        return ["0", "0", "", "0"]
    effective = "unknown" if size is None else f"{size * plan.grad_accum_steps:,}"
    samples = "unknown" if size is None else count_samples(plan, size, planned.num_samples)
    return [f"{plan.total_steps:,}", f"{plan.total_micro_batches:,}", effective, samples]
