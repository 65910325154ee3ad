"""The command ``loopwright resume DIR``, which continues a run with its recorded configuration."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from loopwright.checkpoint import step_folder
from loopwright.errors import CheckpointError, SettingError, on_one_line
from loopwright.experiment.compose.overrides import parse_overrides
from loopwright.experiment.console.command_line import CommandLine
from loopwright.experiment.console.messages import tell
from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.jobs.check import checked_again
from loopwright.experiment.jobs.job_settings import callbacks_of
from loopwright.experiment.jobs.metric_modes import settle_changed_modes
from loopwright.experiment.jobs.recorded import apply_overrides, differences, read_recorded
from loopwright.experiment.jobs.typed_lengths import LENGTHS, settle_lengths
from loopwright.experiment.launch.resume_run import resume_run, resumed_job
from loopwright.experiment.runs.ending import longer_command
from loopwright.plan import read_epochs
from loopwright.protocols import StopsAgain
from loopwright.records import COMPLETE, read_summary

# Overrides of a resume may change the settings in `_MAY_CHANGE`. `_LENGTHS` are the settings of the length of the run.
# `_METRICS` are the settings that select the best checkpoint. A change of `device.kind` changes the results by
# rounding. No other setting in `_KEPT` and `_OTHERS` changes the results. An interval in `_INTERVALS` may change
# between steps and epochs. The plan refuses such a change if the number of steps changes.
_LENGTHS = tuple(f"loop.{name}" for name in LENGTHS)
_KEPT = tuple(
    f"checkpoint.{name}" for name in ("keep_last", "keep_every", "on_save_error", "background", "at_validations")
)
_METRICS = ("objective", "objective_mode", "checkpoint.monitor", "checkpoint.mode")
_EARLY_STOPPING = "loopwright.callbacks.EarlyStopping"
_INTERVALS = ("loop.eval_frequency", "checkpoint.every_n_steps")
_OTHERS = (
    "data.num_workers",
    "device.kind",
    "device.num_processes",
    "device.strategy",
    "device.waits.timeout_seconds",
    "device.waits.grace_seconds",
    "callbacks.time_limit.minutes",
    "max_restarts",
)
_MAY_CHANGE = (*_LENGTHS, *_KEPT, *_METRICS, *_OTHERS)


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
    typed = {override.key_or_group for override in parse_overrides(line.overrides)}
    if not typed.isdisjoint(_METRICS):
        config = settle_changed_modes(config, recorded, typed)
    changes = _check_changes(recorded, settle_lengths(config, line.overrides).config)
    summary = read_summary(directory)
    make_job = partial(resumed_job, config, line.overrides, trust)
    if summary.get("state") in COMPLETE and not _may_train_further(summary, recorded, changes, line.overrides):
        with checked_again(partial(make_job, None), recorded, summary, trust) as ready:  # checks the overrides
            stops_again = isinstance(ready.objects.callbacks.get(_stop_of(summary)[0]), StopsAgain)
            plan = ready.plan.plan
            del ready  # the objects are not needed
        if not stops_again:  # otherwise, `carry_out` prints the setting that continues the run
            has_ended = plan is not None and summary.get("global_step") == plan.stop_step
            longer = longer_command(directory, recorded, plan, trust.flags) if has_ended else None
            tell(_nothing_left(summary, directory, longer))
            return 0
    if not os.path.lexists(step_folder(directory, 0).parent):
        raise CheckpointError(f"{directory}: the run ended before its first checkpoint; start a new run.")
    return resume_run(directory, recorded, config, line.overrides, ["loopwright", *line.words], trust)


def _may_train_further(
    summary: Mapping[str, Any], recorded: Mapping[str, Any], changes: Sequence[str], overrides: Sequence[str]
) -> bool:
    """Return whether overrides of the length or the patience may let a completed or stopped run train further.

    For a completed run, the overrides must change a recorded value. For a stopped run, an override with the recorded
    value is enough, because the run has not reached its recorded length.
    """
    names = {*changes}
    if summary.get("state") == "stopped":
        names |= {override.key_or_group for override in parse_overrides(overrides)}
    return not names.isdisjoint((*_LENGTHS, *_patience(recorded)))


def _patience(recorded: Mapping[str, Any]) -> list[str]:
    """Return the paths of the settings ``patience`` of all `EarlyStopping` callbacks in a recorded configuration."""
    return [f"callbacks.{name}.patience" for name in callbacks_of(recorded, _EARLY_STOPPING)]


def _stop_of(summary: Mapping[str, Any]) -> tuple[str, str]:
    """Return the recorded name of the callback that stopped a run, and the reason; empty strings if unknown."""
    stop = summary.get("stop")
    by, reason = (stop.get("by"), stop.get("reason")) if isinstance(stop, Mapping) else (None, None)
    return by if isinstance(by, str) else "", on_one_line(reason, 300) if isinstance(reason, str) else ""


def _nothing_left(summary: Mapping[str, Any], directory: Path, longer: str | None) -> str:
    """Return the message that a completed or stopped run does not train further.

    Args:
        summary: summary of the run.
        directory: run directory.
        longer: command that trains the run for longer, or None.
    """
    step = on_one_line(str(summary.get("global_step")), 80)
    remedy = "" if longer is None else f" To train it for longer: {longer}"
    if summary.get("state") == "completed":
        how = f"completed at global_step {step}"
    else:
        by, reason = _stop_of(summary)
        name = on_one_line(by, 80)
        how = f"stopped{f' by {name}' if name else ''} at global_step {step}{f' ({reason})' if reason else ''}"
        remedy = f" {name} decides whether a resume trains further.{remedy}" if name else remedy
    return f"{directory}: {how}; nothing is left to do.{remedy}"


def _value(config: Mapping[str, Any], name: str) -> Any:
    """Return the value of ``section.name`` in a configuration, or None."""
    section, _, key = name.partition(".")
    node = config.get(section)
    return node.get(key) if isinstance(node, Mapping) else None


def _check_changes(recorded: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """Return the names of the changed settings. Raise a `SettingError` for a change that a resume does not allow."""
    changes = {line.partition(":")[0]: line for line in differences(recorded, config)}
    in_epochs = [name for name in _INTERVALS if any(read_epochs(_value(each, name)) for each in (recorded, config))]
    allowed = (*_MAY_CHANGE, *_patience(recorded), *in_epochs)
    refused = [line for name, line in changes.items() if name not in allowed]
    if refused:
        loop = recorded.get("loop")
        lengths = [name for name in LENGTHS if isinstance(loop, dict) and loop.get(name) is not None]
        longer = f"; to train for longer, use loop.{lengths[0]}=N" if lengths else ""
        raise SettingError("resume", f": a resumed run keeps its settings ({'; '.join(refused)}){longer}.")
    return list(changes)
