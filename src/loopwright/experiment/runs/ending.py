"""How a run ends: recorded in its directory, said in a line or a summary, and handed on as plain values."""

from __future__ import annotations

import logging
import math
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loopwright.errors import CheckpointError, SaveError, SettingError
from loopwright.experiment.console.closing import closing_text, command_on
from loopwright.experiment.console.messages import complain, one_line_of, tell
from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.jobs.job import Job
from loopwright.experiment.jobs.objects import JobObjects
from loopwright.experiment.jobs.settings import OVERFITS, at_callback_path, at_config_path, callbacks_of
from loopwright.experiment.rundir.run_log import log_only
from loopwright.experiment.rundir.writer import DirectoryWriter
from loopwright.records import draw_curves
from loopwright.trainer import Trainer

_log = logging.getLogger("loopwright")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """One run that is to be carried out.

    Args:
        job: checked; its seed and number of threads are decided.
        directory: the run directory; exists, and holds no run unless ``resume_from`` is given.
        words: the command line.
        trust: the packages that the user trusts.
        objects: what was built from the job when it was checked; None: built when the run begins.
        is_quiet: whether the run is one of many and prints nothing but warnings.
        resume_from: the checkpoint from which the run in the directory is resumed.
    """

    job: Job
    directory: Path
    words: Sequence[str]
    trust: Trust
    objects: JobObjects | None = None
    is_quiet: bool = False
    resume_from: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a run ended; holds nothing that was alive in it.

    Args:
        state: "completed", "interrupted" or "failed".
        exit_code: 0, 1 (failed), 2 (a wrong setting), 3 (a bad checkpoint), 130 or 143 (a signal).
        objective: value of the run's objective; NaN where there is none.
        error: what went wrong, in a line.
    """

    state: str
    exit_code: int
    objective: float = math.nan
    error: str | None = None


@dataclass(slots=True)
class Live:
    """What a run has built so far, for whoever has to say how it ended."""

    trainer: Trainer | None = None


def end_by(error: BaseException, record: DirectoryWriter, live: Live, request: RunRequest) -> Ended:
    """Record and say that ``error`` ended a run: a wrong setting, a failure, a bad checkpoint, or an interruption."""
    state, exit_code, said = "failed", 1, one_line_of(error)
    if isinstance(error, KeyboardInterrupt):
        state, exit_code = "interrupted", 130
    elif isinstance(error, SystemExit):
        state, exit_code = ("interrupted", 143) if error.code == 143 else ("failed", 1)
    elif isinstance(error, CheckpointError):
        exit_code, said = 3, str(error)
    elif isinstance(error, SaveError):
        said = str(error)
    elif isinstance(error, SettingError):
        exit_code, said = 2, str(at_config_path(at_callback_path(error, request.job.config)))
    if state == "interrupted":
        said = state
    trainer = live.trainer
    known: dict[str, Any] = {}
    if trainer is not None:
        best = None if trainer.best is None else asdict(trainer.best)
        known = {"global_step": trainer.global_step, "metrics": dict(trainer.metrics), "best": best}
        if state == "interrupted":
            reason = f" by {trainer.stop_reason}" if trainer.stop_reason else ""
            said = f"interrupted{reason} at global_step {trainer.global_step:,}"
    if state == "failed":
        log_only(f"failed: {''.join(traceback.format_exception(error)).rstrip()}")
    else:
        _log.info("%s", said)
    try:
        record.end(state, exit_code, error=said, **known)
        draw(request.directory)
    except SaveError as unwritten:  # what ended the run is said first
        said = f"{said.rstrip('.')}; {unwritten}"
    if not request.is_quiet:
        _say_end(state, said, known, request)
    return Ended(state=state, exit_code=exit_code, error=said)


def _say_end(state: str, said: str, known: Mapping[str, Any], request: RunRequest) -> None:
    directory, commands = way_on(request, state)
    if state == "interrupted" and known:
        tell(closing_text(f"{said[0].upper()}{said[1:]}.", known["metrics"], known["best"], directory, commands))
    where = f" (traceback in {directory / 'run.log'})"
    if state == "interrupted":
        where = f" (run directory: {directory})"
        if "Resume it" in commands:
            where = f"; go on with: {commands['Resume it']}"
    complain(f"{said}{where}")


def way_on(request: RunRequest, state: str) -> tuple[Path, dict[str, str]]:
    """The run directory, and the commands that go on from its checkpoints, if it has any.

    Args:
        request: of the run.
        state: "completed"; "stopped" by a callback, which would stop it again; anything else is to be resumed.
    """
    directory, trusted = request.directory, request.trust.packages
    if not any((directory / "checkpoints").glob("step_*")):
        return directory, {}
    resume, commands = command_on("resume", directory, trusted), {}
    if callbacks_of(request.job.config, OVERFITS):
        pass  # on a micro-batch that no checkpoint holds
    elif state == "completed":
        longer = _longer(request.job.config["loop"])
        commands = {} if longer is None else {"Train it for longer": f"{resume} {longer}"}
    elif state != "stopped":
        commands = {"Resume it": resume}
    return directory, {**commands, "Validate it": command_on("validate", directory, trusted)}


def _longer(loop: Mapping[str, Any]) -> str | None:
    """The override that doubles the length of a training."""
    for name in ("num_steps", "max_steps", "num_epochs"):
        if isinstance(loop.get(name), int):
            return f"loop.{name}={2 * loop[name]}"
    return None


def draw(directory: Path) -> None:
    """Draw the curves. What was trained is as good without a picture, so nothing that goes wrong here ends a run."""
    try:
        draw_curves(directory)
    except Exception as error:  # noqa: BLE001  (a library's, a font's, a full disk's)
        _log.warning("curves.png: cannot be drawn: %s", one_line_of(error))
