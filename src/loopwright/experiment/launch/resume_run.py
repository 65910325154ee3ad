"""`resume_run` continues a run from its newest valid checkpoint. `begin_run` begins a run that was only recorded."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from loopwright.checkpoint import resolve
from loopwright.experiment.gate.references import expand_recorded
from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.jobs.changes import Changes
from loopwright.experiment.jobs.check import checked_again
from loopwright.experiment.jobs.job import Job, chosen_in, make_recorded_job
from loopwright.experiment.jobs.recorded import apply_overrides
from loopwright.experiment.jobs.start import NO_START
from loopwright.experiment.launch.rank import joined, run_rank
from loopwright.experiment.launch.run_job import run_job, starts_processes
from loopwright.experiment.rundir.environment import recorded_threads
from loopwright.experiment.runs.ending import RunRequest
from loopwright.experiment.runs.run import carry_out, opened, without_progress
from loopwright.records import read_summary

_BUILT = ("data", "model", "callbacks", "loggers")  # sections that may contain paths of files to read


def resume_run(
    directory: Path,
    recorded: Mapping[str, Any],
    config: Mapping[str, Any],
    overrides: Sequence[str],
    words: Sequence[str],
    trust: Trust,
    *,
    is_quiet: bool = False,
) -> int:
    """Resume a run from its newest valid checkpoint, and return the exit code of the run.

    Args:
        directory: run directory.
        recorded: recorded configuration of the run.
        config: recorded configuration with the overrides applied.
        overrides: overrides as typed. They have been checked.
        words: words of the command line.
        trust: packages that the user trusts.
        is_quiet: whether to print nothing.

    Raises:
        SettingError: if the configuration cannot be used.
        CheckpointError: if the run has no valid checkpoint, or if another process uses the directory.
    """
    summary = read_summary(directory)

    def make_job(checkpoint: str, located: dict[str, Any]) -> Job:
        job = resumed_job(config, overrides, trust, checkpoint, located)
        return replace(job, located=_without_progress(job.located)) if is_quiet else job

    with joined(config["device"], trust) as ranks:
        with opened(directory, trust) if ranks.world_size == 1 else nullcontext():
            checkpoint = Path(ranks.share_bytes(None if ranks.rank else os.fsencode(resolve(directory))).decode())
            num_threads = recorded_threads(directory)
            with checked_again(partial(make_job, str(checkpoint)), recorded, summary, trust, num_threads) as ready:
                starts = {name: config[name] for name in NO_START if name in config}
                request = RunRequest(
                    job=replace(
                        ready.job,
                        config={**ready.job.config, **starts},
                        settings=replace(ready.job.settings, **starts),
                    ),
                    directory=directory,
                    words=words,
                    trust=trust,
                    objects=ready.objects,
                    is_quiet=is_quiet,
                    resume_from=checkpoint,
                )
                del ready  # only the request refers to the objects now
                if ranks.world_size > 1:
                    return run_rank(request, ranks)
                if not starts_processes(request.job, ranks):
                    return carry_out(request).exit_code
        return run_job(replace(request, objects=None), ranks)


def begin_run(
    directory: Path,
    config: Mapping[str, Any],
    overrides: Sequence[str],
    words: Sequence[str],
    trust: Trust,
    *,
    chosen: object,
    notes: Sequence[str],
    changes: Changes,
    cwd: str,
    process_words: Sequence[str],
    is_quiet: bool,
) -> int:
    """Begin a run whose configuration was recorded before, and return the exit code of the run.

    Args:
        directory: run directory with ``config.yaml``.
        config: recorded configuration.
        overrides: overrides of the run.
        words: words of a command line that the run records.
        trust: packages that the user trusts.
        chosen: recorded options of the configuration groups.
        notes: lines about settings, which the plan of the run contains.
        changes: settings that differ from the configuration of the experiment.
        cwd: directory to which relative paths of data files refer.
        process_words: words of the command line that carries out this run in several processes.
        is_quiet: whether to print nothing.

    Raises:
        SettingError: if the configuration cannot be used.
        CheckpointError: for a checkpoint that does not exist, or if another process uses the directory.
    """

    def make_job(located: dict[str, Any]) -> Job:
        located, _ = expand_recorded(located, trust.variables)
        job = make_recorded_job(dict(config), overrides, trust)
        sections = {name: located.get(name) for name in _BUILT}
        sections = _without_progress(sections) if is_quiet else sections
        return replace(job, located=sections, chosen=chosen_in(chosen), notes=tuple(notes), changes=changes)

    with joined(config["device"], trust) as ranks, checked_again(make_job, config, {"cwd": cwd}, trust) as ready:
        request = RunRequest(
            job=ready.job, directory=directory, words=words, trust=trust, objects=ready.objects, is_quiet=is_quiet
        )
        del ready  # only the request refers to the objects now
        if starts_processes(request.job, ranks):
            request = replace(request, objects=None, words=process_words)
        return run_job(request, ranks)


def _without_progress(sections: Mapping[str, Any]) -> dict[str, Any]:
    return {**sections, "loggers": without_progress(sections["loggers"])}


def resumed_job(
    config: Mapping[str, Any], overrides: Sequence[str], trust: Trust, checkpoint: str | None, located: dict[str, Any]
) -> Job:
    """Return a job that starts from ``checkpoint`` instead of the checkpoint from which the original run started.

    Args:
        config: recorded configuration with the overrides applied. The resumed run records this configuration.
        overrides: overrides as typed.
        trust: packages that the user trusts.
        checkpoint: checkpoint from which the run resumes; None to start without a checkpoint.
        located: recorded configuration with absolute paths. The overrides are applied to this mapping in place.
    """
    apply_overrides(located, overrides)
    located, _ = expand_recorded(located, trust.variables)
    starts = {name: value for name, value in NO_START.items() if name in config}
    job = make_recorded_job({**config, **starts, "ckpt_path": checkpoint}, overrides, trust)
    return replace(job, located={name: located.get(name) for name in _BUILT})
