"""The command ``loopwright resume DIR``, which continues a run with its recorded configuration."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from loopwright.checkpoint import resolve
from loopwright.errors import SettingError, on_one_line
from loopwright.experiment.console.command_line import CommandLine
from loopwright.experiment.console.messages import tell
from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.jobs.check import checked_again
from loopwright.experiment.jobs.job import Job, make_recorded_job
from loopwright.experiment.jobs.recorded import apply_overrides, differences, read_recorded
from loopwright.experiment.jobs.typed_lengths import LENGTHS, settle_lengths
from loopwright.experiment.rundir.environment import recorded_threads
from loopwright.experiment.runs.ending import RunRequest, longer_command
from loopwright.experiment.runs.run import carry_out, opened
from loopwright.records import read_summary

# A resumed run may change only the settings in `_MAY_CHANGE`. The settings in `_LENGTHS` set the length of the run. The
# other settings do not change its results.
_LENGTHS = (*(f"loop.{name}" for name in LENGTHS), "callbacks.early_stopping.patience")
_KEPT = tuple(
    f"checkpoint.{name}" for name in ("keep_last", "keep_every", "on_save_error", "background", "at_validations")
)
_STARTS = ("ckpt_path", "ckpt_paths", "init_from")
_BUILT = ("data", "model", "callbacks", "loggers")  # sections that may contain paths of files to read
_MAY_CHANGE = (*_LENGTHS, *_KEPT, "data.num_workers", "callbacks.time_limit.minutes", "max_restarts")


def resume(line: CommandLine, trust: Trust) -> int:
    """Resume a run from its newest valid checkpoint, and return the exit code.

    Raises:
        SettingError: if the directory contains no training run, or if an override changes a setting that must not
            change in a resumed run.
        CheckpointError: if the run has no valid checkpoint, or if another process uses the directory.
    """
    assert line.directory is not None
    directory = Path(line.directory)
    recorded = read_recorded(directory)
    config = copy.deepcopy(recorded)
    apply_overrides(config, line.overrides)
    changes = _check_changes(recorded, settle_lengths(config, line.overrides).config)
    summary = read_summary(directory)
    make_job = partial(_make_job, config, line.overrides, trust)
    if summary.get("state") == "completed" and not any(name in _LENGTHS for name in changes):
        with checked_again(partial(make_job, None), recorded, summary, trust) as ready:  # refuses a wrong value
            plan = ready.plan.plan
            del ready  # the objects are not needed
        step = on_one_line(str(summary.get("global_step")), 80)
        was_stopped = plan is not None and summary.get("global_step") != plan.stop_step  # it would be stopped again
        longer = None if was_stopped else longer_command(directory, recorded, plan, trust.packages)
        remedy = "" if longer is None else f" To train it for longer: {longer}"
        tell(f"{directory}: completed at global_step {step}; nothing is left to do.{remedy}")
        return 0
    with opened(directory):
        checkpoint = resolve(directory)
        num_threads = recorded_threads(directory)
        with checked_again(partial(make_job, str(checkpoint)), recorded, summary, trust, num_threads) as ready:
            starts = {name: config[name] for name in _STARTS}
            request = RunRequest(
                job=replace(
                    ready.job,
                    config={**ready.job.config, **starts},
                    settings=replace(ready.job.settings, **starts),
                ),
                directory=directory,
                words=["loopwright", *line.words],
                trust=trust,
                objects=ready.objects,
                resume_from=checkpoint,
            )
            del ready  # only the request refers to the objects now
            return carry_out(request).exit_code


def _make_job(
    config: Mapping[str, Any], overrides: Sequence[str], trust: Trust, checkpoint: str | None, located: dict[str, Any]
) -> Job:
    """Return a job that starts from ``checkpoint`` instead of the checkpoint from which the original run started.

    Args:
        config: recorded configuration with the overrides, which the resumed run records again.
        overrides: overrides as typed.
        trust: packages that the user trusts.
        checkpoint: checkpoint from which the run resumes.
        located: recorded configuration with absolute paths, without the overrides. It is changed in place.
    """
    apply_overrides(located, overrides)
    job = make_recorded_job({**config, **dict.fromkeys(_STARTS), "ckpt_path": checkpoint}, overrides, trust)
    return replace(job, located={name: located.get(name) for name in _BUILT})


def _check_changes(recorded: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """Return the names of the changed settings. Refuse changes that are not allowed in a resumed run."""
    changes = {line.partition(":")[0]: line for line in differences(recorded, config)}
    refused = [line for name, line in changes.items() if name not in _MAY_CHANGE]
    if refused:
        loop = recorded.get("loop")
        lengths = [name for name in LENGTHS if isinstance(loop, dict) and loop.get(name) is not None]
        longer = f"; to train for longer, use loop.{lengths[0]}=N" if lengths else ""
        raise SettingError("resume", f": a resumed run keeps its settings ({'; '.join(refused)}){longer}.")
    return list(changes)
