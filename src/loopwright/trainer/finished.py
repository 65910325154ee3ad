"""Functions that write, remove and read the file ``finished.json`` in the run directory of a finished fit.

The checkpoint of the last step is saved before the last validations. ``finished.json`` contains the state that these
validations changed: the metrics, and the states of the loggers, such as the sizes of log files. With this state, a
resume from the last checkpoint with the same last step repeats no validation.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from loopwright.checkpoint import (
    FINISHED_ERRORS,
    FINISHED_FILE,
    Checkpoint,
    encode,
    manifest_digest,
    read_finished,
    step_folder,
)
from loopwright.engine.metric_log import MetricLog
from loopwright.engine.parts import Parts
from loopwright.engine.state import stateful_loggers
from loopwright.errors import CheckpointError, on_one_line
from loopwright.plan import Plan, plan_differences
from loopwright.regular_files import replace_file

_CHANGED = ("metrics", "loggers")  # entries of a checkpoint that the last validations change

_log = logging.getLogger("loopwright")


def write_finished(parts: Parts, run_dir: Path, plan: Plan) -> None:
    """Write ``finished.json`` after a fit has carried out its whole plan.

    The file is not written if the run directory has no checkpoint of the current step, or if the state of a logger
    contains tensors. A failed write is logged as a warning, because the run is complete without the file.
    """
    step = parts.state.global_step
    folder = step_folder(run_dir, step)
    if not folder.is_dir():
        return
    try:
        entries = {
            "global_step": step,
            "manifest_sha256": manifest_digest(folder),
            "plan": dict(plan.settings()),
            "metrics": parts.log.state_dict(),
            "loggers": {name: logger.state_dict() for name, logger in stateful_loggers(parts.callbacks).items()},
        }
        values, tensors = encode(entries)
        if not tensors:
            replace_file(run_dir / FINISHED_FILE, (json.dumps(values, indent=2, allow_nan=False) + "\n").encode())
    except (OSError, CheckpointError) as error:
        problem = "%s: cannot be written (%s); a resume repeats the last validation."
        _log.warning(problem, run_dir / FINISHED_FILE, _text(error))


def remove_finished(run_dir: Path) -> None:
    """Remove ``finished.json`` before a fit trains or validates in the run directory."""
    with suppress(OSError):  # the file may be missing; a folder with this name is ignored by a resume
        os.unlink(run_dir / FINISHED_FILE)


def with_last_validations(checkpoint: Checkpoint, plan: Plan) -> Checkpoint | None:
    """Add the metrics and the states of the loggers from ``finished.json`` to a checkpoint of the last step.

    Args:
        checkpoint: checkpoint from which a run is resumed.
        plan: plan of the whole run.

    Returns:
        A changed copy of the checkpoint. None if the run of the checkpoint has not finished ``plan``, or if
        ``finished.json`` belongs to another checkpoint or is damaged. For a damaged file, a warning is logged.
    """
    file = checkpoint.path.absolute().parent.parent / FINISHED_FILE
    if checkpoint.step != plan.stop_step or not os.path.lexists(file):
        return None
    try:
        found = read_finished(checkpoint.path)
        if not found:
            return None
        if found["plan"].get("stop_step") != plan.stop_step or plan_differences(found["plan"], plan.settings()):
            return None
        MetricLog(mode=found["metrics"]["mode"]).load_state_dict(found["metrics"])  # raises an error for wrong values
        if not all(isinstance(state, Mapping) for state in found["loggers"].values()):
            raise ValueError("loggers: expected a mapping for each logger")
    except FINISHED_ERRORS as error:
        _log.warning("%s: cannot be used (%s); the last validation is repeated.", file, _text(error))
        return None
    return replace(checkpoint, state={**checkpoint.state, **{name: found[name] for name in _CHANGED}})


def _text(error: Exception) -> str:
    return on_one_line(f"{type(error).__name__}: {error}", 200)
