"""Functions that record the end of a run in its run directory and print the closing message.

`RunRequest` describes a run to carry out. `Ended` describes the outcome of the run.
"""

from __future__ import annotations

import logging
import math
import signal
import threading
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loopwright.checkpoint import steps_in
from loopwright.device import is_peer_error
from loopwright.errors import CheckpointError, SaveError, SettingError
from loopwright.experiment.compose.overrides import override_text
from loopwright.experiment.console.closing import closing_text
from loopwright.experiment.console.command_line import command_on
from loopwright.experiment.console.messages import complain, one_line_of, tell
from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.jobs.job import Job
from loopwright.experiment.jobs.job_settings import (
    OVERFITS,
    at_callback_path,
    at_config_path,
    callbacks_of,
)
from loopwright.experiment.jobs.objects import JobObjects
from loopwright.experiment.rundir.run_log import log_only
from loopwright.experiment.rundir.run_report import REPORT_FILE, write_run_report
from loopwright.experiment.rundir.writer import DirectoryWriter
from loopwright.experiment.runs.causes import Cause, find_cause
from loopwright.plan import Plan, longer_length
from loopwright.protocols import StopsAgain
from loopwright.records import draw_curves, reads_new_samples
from loopwright.records.validations import VALIDATIONS_FILE, draw_validations, write_validations
from loopwright.trainer import Trainer

_CAUSE_SECONDS = 5.0  # longest wait for the error of the process that has failed
_log = logging.getLogger("loopwright")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """A request to carry out one run.

    Args:
        job: checked job with a seed and a number of threads.
        directory: existing run directory. The directory contains a run only if ``resume_from`` is given.
        words: command line as a list of words, beginning with ``loopwright``.
        trust: packages that the user trusts.
        objects: objects that were built when the job was checked. With None, `carry_out` builds the objects.
        is_quiet: whether only logged warnings and errors are printed. True for the jobs of a sweep.
        resume_from: checkpoint from which the run in ``directory`` is resumed. With None, a new run begins.
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
    """The outcome of a run. `Ended` holds no reference to the model or the data, so their memory can be freed.

    Args:
        state: "completed", "stopped", "interrupted" or "failed".
        exit_code: 0 (completed or stopped), 1 (failed), 2 (wrong setting), 3 (bad checkpoint), 130 or 143 (signal).
        objective: value of the objective metric at the end of the run; NaN if the metric has no value.
        error: error message on one line; None if the run completed or was stopped.
    """

    state: str
    exit_code: int
    objective: float = math.nan
    error: str | None = None


@dataclass(slots=True)
class Live:
    """Holds the trainer of a run. If an error ends the run, `end_by` records the step and the metrics of this trainer.

    Args:
        trainer: trainer of the run; None until the trainer has been built.
    """

    trainer: Trainer | None = None


def end_by(error: BaseException, writer: DirectoryWriter, live: Live, request: RunRequest) -> Ended:
    """Record and print that ``error`` ended a run. Return the outcome of the run."""
    state, exit_code, said = "failed", 1, one_line_of(error)
    cause: Cause | None = None
    if is_peer_error(error):
        _ignore_sigterm()
        cause = find_cause(request.directory, without=0, within_seconds=_CAUSE_SECONDS)
        if cause is None:
            said = f"another process did not answer within device.waits.timeout_seconds, or has ended: {said}"
    if cause is not None:
        exit_code, said = cause.exit_code, f"rank {cause.rank}: {cause.line}"
    elif isinstance(error, KeyboardInterrupt):
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
            known["stop"] = None if trainer.stopped_by is None else stop_of(trainer)  # None after a signal
            reason = f" by {trainer.stop_reason}" if trainer.stop_reason else ""
            said = f"interrupted{reason} at global_step {trainer.global_step:,}"
    if state == "failed":
        text = cause.traceback if cause is not None else "".join(traceback.format_exception(error)).rstrip()
        log_only(f"failed: {text or said}")
    else:
        _log.info("%s", said)
    try:
        writer.end(state, exit_code, error=said, **known)
        draw(request, next_commands(request, state)[1])
    except SaveError as unwritten:  # the message names the error that ended the run, then this error
        said = f"{said.rstrip('.')}; {unwritten}"
    if not request.is_quiet:
        _print_end(state, said, known, request)
    return Ended(state=state, exit_code=exit_code, error=said)


def _ignore_sigterm() -> None:
    """Ignore SIGTERM until this process ends. A launcher sends SIGTERM to this process if another process has ended."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _print_end(state: str, said: str, known: Mapping[str, Any], request: RunRequest) -> None:
    directory, commands = next_commands(request, state)
    if state != "interrupted":
        complain(f"{said} (traceback in {directory / 'run.log'})")
        return
    complain(f"{said} (run directory: {directory})")
    if known:
        tell(closing_text(None, known["metrics"], known["best"], directory, commands))


def stop_of(trainer: Trainer) -> dict[str, str | None] | None:
    """Return the reason why the last fit was stopped, and the name of the callback that stopped the fit.

    Returns:
        A mapping with the keys ``by`` and ``reason``; None if the fit was not stopped. ``by`` is the name of the
        callback, or None if `Trainer.stop` was called outside callbacks.
    """
    return None if trainer.stop_reason is None else {"by": trainer.stopped_by, "reason": trainer.stop_reason}


def continuing_overrides(trainer: Trainer) -> tuple[str, ...]:
    """Return the overrides with which a stopped run trains further when it is resumed.

    The tuple is empty if no callback stopped the run, or if the callback names no setting to change.
    """
    by = trainer.stopped_by
    callback = None if by is None else trainer.named_callbacks.get(by)
    settings: Mapping[str, object] = callback.to_continue if isinstance(callback, StopsAgain) else {}
    return tuple(f"callbacks.{by}.{name}={value}" for name, value in settings.items())


def next_commands(
    request: RunRequest, state: str, plan: Plan | None = None, continue_with: Sequence[str] = ()
) -> tuple[Path, dict[str, str]]:
    """Return the run directory, and a mapping from labels to shell commands that use the checkpoints of the run.

    The mapping is empty if the run has no checkpoint.

    Args:
        request: request for the run.
        state: state of the run, as in `Ended`. For "completed", one command trains for longer. For "stopped", one
            command resumes the run with ``continue_with``. For any other state, one command resumes the run.
        plan: plan of a completed fit. With None, no command that trains for longer is returned.
        continue_with: overrides with which a stopped run trains further when it is resumed.
    """
    directory, permissions = request.directory, request.trust.flags
    if not steps_in(directory):
        return directory, {}
    resume, commands = command_on("resume", directory, permissions), {}
    if callbacks_of(request.job.config, OVERFITS):
        pass  # the run cannot be resumed, because no checkpoint contains its only micro-batch
    elif state == "completed":
        longer = longer_command(directory, request.job.config, plan, permissions)
        commands = {} if longer is None else {"Train it for longer": longer}
    elif state == "stopped":
        commands = (
            {"To continue": command_on("resume", directory, permissions, *continue_with)} if continue_with else {}
        )
    else:
        commands = {"Resume it": resume}
    if request.objects is None or request.objects.data.val is not None:
        commands["Validate it"] = command_on("validate", directory, permissions)
    if state == "completed" and request.objects is not None and reads_new_samples(request.objects.data.encoding):
        path = request.job.config["data"]["path"]
        label = "Predict for a new file (change data.path)"
        commands[label] = command_on("predict", directory, permissions, override_text("data.path", path))
    return directory, commands


def longer_command(
    directory: Path, config: Mapping[str, Any], plan: Plan | None, permissions: Sequence[str]
) -> str | None:
    """Return the command that resumes a completed run with about twice its length; None if there is no such command.

    Args:
        directory: run directory.
        config: resolved configuration of the run.
        plan: plan of the fit; None if the run did not train.
        permissions: flags of the command, such as ``--trust=NAME``.
    """
    if plan is None or not steps_in(directory) or callbacks_of(config, OVERFITS):
        return None
    name, value = longer_length(plan)
    # A function of the user may have built the loop with another length than the configured length.
    is_set = config["loop"].get(name) == plan.settings()[f"loop.{name}"]
    return command_on("resume", directory, permissions, f"loop.{name}={value}") if is_set else None


def draw(request: RunRequest, commands: Mapping[str, str], rows: Sequence[Mapping[str, Any]] = ()) -> None:
    """Draw the curves of a run to ``curves.png``, and write ``report.html`` if the settings ask for it.

    Errors are logged as warnings, because all results are recorded.

    Args:
        request: request for the run.
        commands: commands for the report, by label.
        rows: results of validating several checkpoints, for ``validations.csv`` and ``validations.png``.
    """
    directory = request.directory
    if rows:
        try:
            write_validations(directory, rows)
            draw_validations(directory, rows)
        except Exception as error:  # noqa: BLE001  (a fault in a library or a font, or a full disk)
            _log.warning("%s: cannot be written: %s", VALIDATIONS_FILE, one_line_of(error))
    try:
        draw_curves(directory)
    except Exception as error:  # noqa: BLE001  (a fault in a library or a font, or a full disk)
        _log.warning("curves.png: cannot be drawn: %s", one_line_of(error))
    if request.job.settings.report:
        try:
            write_run_report(directory, commands)
        except Exception as error:  # noqa: BLE001  (a fault in the page, or a full disk)
            _log.warning("%s: cannot be written: %s", REPORT_FILE, one_line_of(error))
