"""`take_part`: the side of `verify_ranks` in each of the processes that train together."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

from loopwright.errors import CheckpointError, SettingError
from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.jobs.check import checked
from loopwright.experiment.jobs.job import Job
from loopwright.experiment.launch.agent import DIRECTORY
from loopwright.experiment.launch.rank import as_ranked, joined
from loopwright.experiment.runs.causes import write_cause, write_end
from loopwright.experiment.verify.both_ways import validating
from loopwright.experiment.verify.dropout import WithoutDropout
from loopwright.experiment.verify.rank_trace import RankTrace, read_gradients, write_trace
from loopwright.experiment.verify.trials import Trials


def take_part(job: Job, trust: Trust, num_steps: int) -> NoReturn:
    """Join the other processes, train with them, write the trace of this process, and exit.

    The exit code is 0 for torch's launcher. If this process fails, it writes the cause and exits with code 1.
    """
    folder = Path(os.environ[DIRECTORY])
    rank, code = int(os.environ["RANK"]), 0
    try:
        with joined(job.config["device"], trust) as ranks, checked(as_ranked(job, ranks), trust) as ready:
            trials = Trials(ready.job, trust, num_steps, ready.objects.data)
            del ready
            record(trials, folder, rank)
        if not rank:
            write_end(folder, 0)
    except BaseException as error:  # noqa: BLE001  (the command that started this process reports the cause)
        code = 1
        of_run = 3 if isinstance(error, CheckpointError) else 2 if isinstance(error, SettingError) else 1
        write_cause(folder, rank, error, of_run)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def record(trials: Trials, folder: Path, rank: int) -> None:
    """Train as one of several processes, and write the trace of this process to ``folder``."""
    trace = RankTrace(trials.num_steps, read_gradients(folder))
    with WithoutDropout():
        trials.run(validating(trials), trace)
    write_trace(folder, rank, trace)
