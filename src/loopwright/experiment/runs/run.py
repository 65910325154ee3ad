"""`carry_out`: carries out one run of a checked job and records the run in its directory.

Single runs and the jobs of a sweep both use this module.
"""

from __future__ import annotations

import gc
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from loopwright.checkpoint import find_best, step_folder
from loopwright.data import Splits
from loopwright.device import deterministic_operations
from loopwright.errors import SettingError, did_you_mean
from loopwright.experiment.console.closing import closing_text
from loopwright.experiment.console.messages import tell
from loopwright.experiment.console.tables import print_rows
from loopwright.experiment.gate.masking import masking
from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.jobs.changes import as_changes, changes_after_resume
from loopwright.experiment.jobs.job import Job
from loopwright.experiment.jobs.job_plan import describe_validation
from loopwright.experiment.jobs.job_settings import JobSettings
from loopwright.experiment.jobs.objects import build_objects, facts_of, make_trainer
from loopwright.experiment.jobs.rate_curve import learning_rate_course
from loopwright.experiment.jobs.recorded import read_recorded
from loopwright.experiment.rundir.environment import environment, environment_differences
from loopwright.experiment.rundir.git_state import git_state
from loopwright.experiment.rundir.origin import described, origins
from loopwright.experiment.rundir.recording import RecordingCallback
from loopwright.experiment.rundir.run_log import run_log
from loopwright.experiment.rundir.stop_file import PRUNER, StopFile
from loopwright.experiment.rundir.writer import DirectoryWriter
from loopwright.experiment.runs.ending import (
    Ended,
    Live,
    RunRequest,
    continuing_overrides,
    draw,
    end_by,
    next_commands,
    stop_of,
)
from loopwright.experiment.runs.ending_signals import ending_on_signals
from loopwright.hooks import Callback
from loopwright.loop import TrainingLoop
from loopwright.records import read_environment, read_summary
from loopwright.run_lock import hold
from loopwright.trainer import Trainer

SWEEP_FILE = "sweep.json"  # index of a sweep, in the parent of the directories of its jobs
_PROGRESS = "loopwright.loggers.ProgressLogger"
_MAX_CHANGES = 5  # maximum number of logged differences of the environment; the summary contains all differences
_log = logging.getLogger("loopwright")


@dataclass(frozen=True, slots=True)
class _Outcome:
    """The result of a fit or of a validation."""

    metrics: Mapping[str, float]
    did: str
    state: str = "completed"
    stop: dict[str, str | None] | None = None
    continue_with: Sequence[str] = ()  # overrides with which a resumed run trains further
    best: dict[str, Any] | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)


def run(request: RunRequest) -> Ended:
    """Lock a run directory and carry out one run in it."""
    with opened(request.directory, request.trust):
        return carry_out(request)


@contextmanager
def opened(directory: Path, trust: Trust) -> Iterator[None]:
    """While the context is open, lock a run directory and write the log to the file ``run.log`` in this directory.

    Values of environment variables are masked in the log. SIGTERM and SIGUSR1 raise ``SystemExit(143)``. A fit replaces
    these signal handlers until the fit ends.

    Raises:
        CheckpointError: if another process uses the directory.
    """
    with hold(directory), run_log(directory / "run.log", masking(trust)), ending_on_signals():
        yield


def carry_out(request: RunRequest) -> Ended:
    """Carry out one run. The contexts `opened` and `loopwright.experiment.jobs.check.applied` must be open.

    An error that ends the run is not raised. The traceback of the error is written to ``run.log``. Unless the request
    is quiet, the message of the error is printed to stderr in one line.
    """
    job, is_resumed = request.job, request.resume_from is not None
    writer = DirectoryWriter(request.directory, job.settings, is_resumed=is_resumed, mask=masking(request.trust))
    live = Live()
    try:
        with deterministic_operations(job.settings.deterministic):  # an error of this context is also recorded
            return _carry_out(request, writer, live)
    except BaseException as error:  # noqa: BLE001  (the traceback of a raised error would keep the model in memory)
        return end_by(error, writer, live, request)


def follow(request: RunRequest) -> None:
    """Carry out a run in a process other than process 0. This process records and prints nothing.

    Raises:
        Exception: any error of the run.
        SystemExit, KeyboardInterrupt: if the run is interrupted.
    """
    job = request.job
    with deterministic_operations(job.settings.deterministic):
        objects = build_objects(job, request.trust) if request.objects is None else request.objects
        with make_trainer(job, objects, request.trust, request.directory) as trainer:
            _collect_garbage_from_here()
            started = [] if request.resume_from is not None else origins(job.settings)
            quiet = replace(request, is_quiet=True)
            if isinstance(trainer.loop, TrainingLoop):
                _fit(trainer, quiet, job.settings, started, objects.data)
            else:
                _validate(trainer, job.settings, started, objects.data.val)
            if trainer.is_sharded:
                trainer.weights_digest()  # process 0 gathers the weights for its summary


def _carry_out(request: RunRequest, writer: DirectoryWriter, live: Live) -> Ended:
    job, settings = request.job, request.job.settings
    _record_beginning(request, writer)
    objects = build_objects(_without_progress(job), request.trust) if request.objects is None else request.objects
    course = learning_rate_course(objects.optimizer, objects.schedulers)
    recording = RecordingCallback(writer, job.recorded, course, settings.objective, job.notes)
    callbacks: dict[str, Callback] = {"run_recorder": recording}
    if (request.directory.parent / SWEEP_FILE).exists():
        callbacks[PRUNER] = StopFile(request.directory, settings.log_every_n_steps)
    trainer = make_trainer(job, objects, request.trust, request.directory, callbacks)
    live.trainer = trainer
    with trainer:
        data = objects.data
        _collect_garbage_from_here()
        writer.write_data(facts_of(data), data.encoding)
        started = [] if request.resume_from is not None else origins(settings)
        if started:
            writer.write_origins(described(started))
        if isinstance(trainer.loop, TrainingLoop):
            outcome = _fit(trainer, request, settings, started, data)
        else:
            if data.val is None:
                raise SettingError(
                    "data", ": has no validation data; choose data with validation data, or loop=training."
                )
            writer.write_plan(describe_validation(trainer.loop, data), {})
            outcome = _validate(trainer, settings, started, data.val)
        objective = _objective(settings, outcome.metrics)
        writer.end(
            outcome.state,
            0,
            stop=outcome.stop,
            global_step=recording.validated_step if trainer.plan is None else trainer.global_step,
            metrics=dict(outcome.metrics),
            best=outcome.best,
            rows=outcome.rows or None,
            objective=None if math.isnan(objective) else objective,
            weights_sha256=trainer.weights_digest(),
        )
    directory, commands = next_commands(request, outcome.state, trainer.plan, outcome.continue_with)
    draw(request, commands, outcome.rows)
    if not request.is_quiet:
        print_rows(outcome.rows)
        tell(closing_text(f"Done: {outcome.did}.", outcome.metrics, outcome.best, directory, commands))
    _log.info("%s", outcome.did)
    return Ended(state=outcome.state, exit_code=0, objective=objective)


def _collect_garbage_from_here() -> None:
    """Freeze all existing objects, then enable the garbage collector, which `loopwright.cli.console` disabled."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


def _without_progress(job: Job) -> Job:
    """Return a job with its progress loggers turned off."""
    return replace(job, config={**job.config, "loggers": without_progress(job.config.get("loggers"))})


def without_progress(loggers: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a section ``loggers`` with its progress loggers off, unless their ``mode`` is not ``auto``."""
    quiet = {
        name: entry | {"mode": "off"}
        for name, entry in (loggers or {}).items()
        if isinstance(entry, dict) and entry.get("_target_") == _PROGRESS and entry.get("mode", "auto") == "auto"
    }
    return {**(loggers or {}), **quiet}


def _record_beginning(request: RunRequest, writer: DirectoryWriter) -> None:
    job, (git, diff) = request.job, git_state(Path.cwd())
    here = environment(job.num_threads, git, request.trust)
    if request.resume_from is None:
        writer.write_beginning(job.recorded, request.words, job.chosen, job.changes, here, diff)
        return
    _log.info("resumed from %s", request.resume_from)
    moved = environment_differences(read_environment(request.directory), here)
    if moved:
        shown = "; ".join(moved[:_MAX_CHANGES])
        more = f"; and {len(moved) - _MAX_CHANGES} more" if len(moved) > _MAX_CHANGES else ""
        _log.warning("Resumed in another environment, so the results may differ: %s%s.", shown, more)
    before, recorded = as_changes(read_summary(request.directory).get("changes")), read_recorded(request.directory)
    changes = changes_after_resume(before, recorded, job.recorded)
    writer.note_resumption(job.recorded, request.words, changes, request.resume_from, moved)


def _fit(
    trainer: Trainer, request: RunRequest, settings: JobSettings, started: Sequence[Path], data: Splits
) -> _Outcome:
    start = started[0] if started else request.resume_from
    if start is not None and not request.is_quiet:
        is_new = request.resume_from is None and settings.init_from is not None
        tell(f"{'Initial weights' if is_new else 'Resumes from'}: {start} ({_why(start, settings, request)})")
    if settings.init_from is not None and request.resume_from is None:
        strict, init_optimizer = settings.init_strict, settings.init_optimizer
        result = trainer.fit(data.train, data.val, init_from=start, strict=strict, init_optimizer=init_optimizer)
    else:
        result = trainer.fit(data.train, data.val, ckpt_path=start)
    if result.state == "interrupted":  # the signal was sent to another process
        raise KeyboardInterrupt if trainer.stop_reason == "SIGINT" else SystemExit(143)
    best = None if result.best is None else asdict(result.best)
    step, num_steps = f"global_step {result.global_step:,}", result.plan.total_steps
    if result.state == "completed":
        did = f"trained {num_steps:,} steps to {step} in {result.seconds:.1f} s"
        return _Outcome(result.metrics, did, best=best)
    by = "" if trainer.stopped_by is None else f" by {trainer.stopped_by}"
    did = f"stopped{by} at {step} after {result.seconds:.1f} s: {trainer.stop_reason}"
    continue_with = continuing_overrides(trainer)
    if result.global_step == result.plan.position and not result.plan.begins_with_validation:
        did = f"trained nothing; the run was stopped{by} at {step}"
        replaced = {word.partition("=")[0] for word in continue_with}
        if continue_with and request.resume_from is not None:  # the overrides of this resume were not recorded
            typed = request.job.overrides
            continue_with += tuple(word for word in typed if word.partition("=")[0] not in replaced)
    return _Outcome(result.metrics, did, result.state, stop_of(trainer), continue_with, best)


def _why(start: Path, settings: JobSettings, request: RunRequest) -> str:
    """Return the reason why a run starts from ``start``: newest checkpoint, best checkpoint, or path as typed."""
    typed = settings.init_from or settings.ckpt_path
    if request.resume_from is not None or (typed is not None and Path(typed) != start):
        return "newest checkpoint"
    is_of_run = start.parent == step_folder(start.parent.parent, 0).parent
    best = find_best(start) if is_of_run else None
    is_best = best is not None and step_folder(start.parent.parent, best.step) == start
    return f"best {best.name} {best.value:.4g}" if best is not None and is_best else "as given"


def _validate(trainer: Trainer, settings: JobSettings, started: Sequence[Path], val: Any) -> _Outcome:
    if settings.ckpt_paths is None:
        if settings.ckpt_path is None:
            _log.warning("ckpt_path=null: the initial weights of the model are validated.")
        metrics = trainer.validate(val, ckpt_path=started[0] if started else None)
        return _Outcome(metrics, f"validated {settings.ckpt_path or 'the initial weights'}")
    rows = trainer.validate_all(val, ckpt_paths=started)
    shown = [
        {"checkpoint": str(row.checkpoint), "dataloader": row.dataloader, "metrics": dict(row.metrics)} for row in rows
    ]
    last = {name: value for row in rows if row.checkpoint == rows[-1].checkpoint for name, value in row.metrics.items()}
    num_checkpoints = len({row.checkpoint for row in rows})
    did = f"validated {num_checkpoints} checkpoint{'s' if num_checkpoints > 1 else ''}"
    return _Outcome(last, did, rows=shown)


def _objective(settings: JobSettings, metrics: Mapping[str, float]) -> float:
    value = metrics.get(settings.objective)
    if value is None and settings.objective.startswith("val/") and not any(name.startswith("val/") for name in metrics):
        _log.warning("objective=%r: nothing was validated, so this run has no objective.", settings.objective)
        return math.nan
    if value is None:
        known = ", ".join(sorted(metrics)) or "none"
        hint = did_you_mean(settings.objective, metrics)
        _log.warning("objective=%r: no such metric. Available: %s.%s", settings.objective, known, hint)
        return math.nan
    return float(value)
