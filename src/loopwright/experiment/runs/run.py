"""One run: from a checked configuration to a finished run directory. What a job of a sweep calls, too."""

from __future__ import annotations

import gc
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from loopwright.checkpoint import plain_names, weights_digest
from loopwright.data import Splits
from loopwright.errors import SettingError, did_you_mean
from loopwright.experiment.console.closing import closing_text
from loopwright.experiment.console.messages import tell
from loopwright.experiment.console.tables import print_rows
from loopwright.experiment.jobs.job_plan import describe_validation
from loopwright.experiment.jobs.objects import build_run_data, build_trainer, facts_of
from loopwright.experiment.jobs.process import ending_on_signals, process_settings
from loopwright.experiment.jobs.rate_curve import learning_rate_course
from loopwright.experiment.jobs.settings import JobSettings, read_settings
from loopwright.experiment.rundir.environment import (
    environment,
    environment_differences,
    git_state,
    read_environment,
)
from loopwright.experiment.rundir.lock import hold
from loopwright.experiment.rundir.origin import origin_digests, origins
from loopwright.experiment.rundir.recording import RecordingCallback
from loopwright.experiment.rundir.run_log import run_log
from loopwright.experiment.rundir.writer import DirectoryWriter
from loopwright.experiment.runs.ending import Ended, Live, RunRequest, draw, end_by, way_on
from loopwright.loop import TrainingLoop
from loopwright.seeding import draw_seed
from loopwright.trainer import Trainer

_PROGRESS = "loopwright.loggers.ProgressLogger"
_MAX_CHANGES = 5  # that are said; the summary has all
_log = logging.getLogger("loopwright")


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What a run came to."""

    metrics: Mapping[str, float]
    did: str
    state: str = "completed"
    best: dict[str, Any] | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)


def run(request: RunRequest) -> Ended:
    """Carry out one run in a directory of its own."""
    with opened(request.directory):
        return carry_out(request)


@contextmanager
def opened(directory: Path) -> Iterator[None]:
    """While the context is open, this process alone works on a run directory, and what is logged goes to ``run.log``.

    SIGTERM and SIGUSR1 raise ``SystemExit(143)``, except in a fit, which handles them itself.

    Raises:
        CheckpointError: if another process works on it.
    """
    with hold(directory), run_log(directory / "run.log"), ending_on_signals():
        yield


def carry_out(request: RunRequest) -> Ended:
    """Carry out one run whose directory is `opened`.

    Exceptions end here: in ``run.log`` with their traceback, and as one line on stderr.
    """
    settings = read_settings(request.config)
    record = DirectoryWriter(request.directory, settings, is_resumed=request.resume_from is not None)
    live = Live()
    try:
        return _carry_out(request, settings, record, live)
    except BaseException as error:  # noqa: BLE001  (nothing of a run may outlive it: frames would keep its model)
        return end_by(error, record, live, request)


def _carry_out(request: RunRequest, settings: JobSettings, record: DirectoryWriter, live: Live) -> Ended:
    config, num_threads = _settle(request)
    settings = read_settings(config)
    with process_settings(num_threads, deterministic=settings.deterministic):
        _record_beginning(request, record, config, num_threads)
        course = learning_rate_course(config, request.trust)
        recorder = RecordingCallback(record, config, course, _named_metrics(config))
        built_from = _without_progress(config) if request.is_quiet else config
        trainer = build_trainer(built_from, settings, request.trust, request.directory, {"run_recorder": recorder})
        live.trainer = trainer
        with trainer:
            data = build_run_data(config, request.trust, trainer.seed)
            _collect_garbage_from_here()
            record.write_data(facts_of(data))
            started = [] if request.resume_from is not None else origins(settings)
            if started:
                record.write_origins(origin_digests(started))
            if isinstance(trainer.loop, TrainingLoop):
                outcome = _fit(trainer, request, settings, started, data)
            else:
                if data.val is None:
                    raise SettingError("data", ": has no validation data; choose data that have, or loop=training.")
                record.write_plan(describe_validation(trainer.loop, data), {})
                outcome = _validate(trainer, settings, started, data.val)
        objective = _objective(settings, outcome.metrics)
        record.end(
            "completed",
            0,
            global_step=recorder.validated_step if trainer.plan is None else trainer.global_step,
            metrics=dict(outcome.metrics),
            best=outcome.best,
            rows=outcome.rows or None,
            objective=None if math.isnan(objective) else objective,
            weights_sha256=weights_digest(plain_names(trainer.model)),
        )
    draw(request.directory)
    if not request.is_quiet:
        print_rows(outcome.rows)
        tell(closing_text(f"Done: {outcome.did}.", outcome.metrics, outcome.best, *way_on(request, outcome.state)))
    _log.info("%s", outcome.did)
    return Ended(state="completed", exit_code=0, objective=objective)


def _collect_garbage_from_here() -> None:
    """Turn on the garbage collector that `loopwright.cli.console` put off; what is there by now it need not look at."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


def _settle(request: RunRequest) -> tuple[dict[str, Any], int]:
    """The configuration with what was left open decided: the seed, and the number of threads."""
    config = dict(request.config)
    if config["seed"] is None:
        config["seed"] = draw_seed()
    device = dict(config["device"])
    num_threads = device.get("num_threads") or request.default_num_threads
    if "num_threads" in device:
        config["device"] = device | {"num_threads": num_threads}
    return config, num_threads


def _without_progress(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a job among many, which shows no progress of its own unless it was asked to."""
    loggers = config.get("loggers") or {}
    quiet = {
        name: entry | {"mode": "off"}
        for name, entry in loggers.items()
        if isinstance(entry, dict) and entry.get("_target_") == _PROGRESS and entry.get("mode", "auto") == "auto"
    }
    return {**config, "loggers": {**loggers, **quiet}}


def _record_beginning(
    request: RunRequest, record: DirectoryWriter, config: Mapping[str, Any], num_threads: int
) -> None:
    git, diff = git_state(Path.cwd())
    here = environment(num_threads, git, request.trust)
    if request.resume_from is None:
        record.write_beginning(config, request.words, here, diff)
        return
    _log.info("resumed from %s", request.resume_from)
    changes = environment_differences(read_environment(request.directory), here)
    if changes:
        shown = "; ".join(changes[:_MAX_CHANGES])
        more = f"; and {len(changes) - _MAX_CHANGES} more" if len(changes) > _MAX_CHANGES else ""
        _log.warning("Resumed in another environment, in which numbers may differ: %s%s.", shown, more)
    record.note_resumption(config, request.words, request.resume_from, changes)


def _fit(
    trainer: Trainer, request: RunRequest, settings: JobSettings, started: Sequence[Path], data: Splits
) -> _Outcome:
    start = started[0] if started else request.resume_from
    if settings.init_from is not None and request.resume_from is None:
        result = trainer.fit(data.train, data.val, init_from=start)
    else:
        result = trainer.fit(data.train, data.val, ckpt_path=start)
    if result.state == "interrupted":
        raise SystemExit(143)
    best = None if result.best is None else asdict(result.best)
    num_steps = result.plan.total_steps
    did = f"trained {num_steps:,} steps to global_step {result.global_step:,} in {result.seconds:.1f} s"
    if result.state == "stopped":
        did = f"stopped at global_step {result.global_step:,} after {result.seconds:.1f} s: {trainer.stop_reason}"
    return _Outcome(result.metrics, did, result.state, best)


def _validate(trainer: Trainer, settings: JobSettings, started: Sequence[Path], val: Any) -> _Outcome:
    if settings.ckpt_paths is None:
        if settings.ckpt_path is None:
            _log.warning("ckpt_path=null: the weights validated are those the model starts with.")
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


def _named_metrics(config: Mapping[str, Any]) -> dict[str, str]:
    """Settings that name a metric, with the name."""
    named = {"objective": config["objective"]}
    checkpoint = config.get("checkpoint") or {}
    if checkpoint.get("monitor") is not None:
        named["checkpoint.monitor"] = checkpoint["monitor"]
    return named


def _objective(settings: JobSettings, metrics: Mapping[str, float]) -> float:
    value = metrics.get(settings.objective)
    if value is None and settings.objective.startswith("val/") and not any(name.startswith("val/") for name in metrics):
        _log.warning("objective=%r: nothing was validated, so this run has none.", settings.objective)
        return math.nan
    if value is None:
        known = ", ".join(sorted(metrics)) or "none"
        hint = did_you_mean(settings.objective, metrics)
        _log.warning("objective=%r: no such metric. Available: %s.%s", settings.objective, known, hint)
        return math.nan
    return float(value)
