"""One run: from a checked configuration to a finished run directory. What a job of a sweep calls, too."""

from __future__ import annotations

import gc
import logging
import math
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from loopwright.checkpoint import plain_names, weights_digest
from loopwright.errors import CheckpointError, SettingError, did_you_mean
from loopwright.experiment.build import build_run_data, build_trainer
from loopwright.experiment.command.closing import closing_text, print_rows
from loopwright.experiment.command.speech import complain, one_line_of, tell
from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.job_plan import describe_validation
from loopwright.experiment.learning_rate import learning_rate_course
from loopwright.experiment.process import process_settings
from loopwright.experiment.rundir.environment import environment, git_state
from loopwright.experiment.rundir.record import RunRecord
from loopwright.experiment.rundir.recorder import RunRecorder
from loopwright.experiment.rundir.run_log import log_only, run_log
from loopwright.experiment.settings import RunSettings, read_settings
from loopwright.loop import TrainingLoop
from loopwright.records import draw_curves
from loopwright.seeding import draw_seed
from loopwright.trainer import Trainer

_PROGRESS = "loopwright.loggers.ProgressLogger"
_log = logging.getLogger("loopwright")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What is to be run.

    Args:
        config: resolved and checked.
        directory: the run directory; exists and holds no run.
        words: the command line.
        trust: what the user trusts.
        default_num_threads: threads of the CPU's operations where the configuration says nothing.
        is_quiet: whether the run is one of many and prints nothing but warnings.
    """

    config: Mapping[str, Any]
    directory: Path
    words: Sequence[str]
    trust: Trust
    default_num_threads: int
    is_quiet: bool


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
class _Live:
    """What a run has built so far, for whoever has to say how it ended."""

    trainer: Trainer | None = None


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What a run came to."""

    metrics: Mapping[str, float]
    did: str
    best: dict[str, Any] | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)


def run(request: RunRequest) -> Ended:
    """Carry out one run. Exceptions end here: in ``run.log`` with their traceback, and as one line on stderr."""
    settings = read_settings(request.config)
    record = RunRecord(request.directory, settings)
    with run_log(request.directory / "run.log"):
        live = _Live()
        try:
            return _carry_out(request, settings, record, live)
        except BaseException as error:  # noqa: BLE001  (nothing of a run may outlive it: frames would keep its model)
            return _end_by(error, record, live, request)


def _carry_out(request: RunRequest, settings: RunSettings, record: RunRecord, live: _Live) -> Ended:
    config, num_threads = _settle(request)
    settings = read_settings(config)
    with process_settings(num_threads, deterministic=settings.deterministic):
        git, diff = git_state(Path.cwd())
        record.write_beginning(config, request.words, environment(num_threads, git), diff)
        course = learning_rate_course(config, request.trust)
        recorder = RunRecorder(record, config, course, _named_metrics(config))
        built_from = _without_progress(config) if request.is_quiet else config
        trainer = build_trainer(built_from, settings, request.trust, request.directory, {"run_recorder": recorder})
        live.trainer = trainer
        with trainer:
            data = build_run_data(config, request.trust, trainer.seed)
            _collect_garbage_from_here()
            record.write_data(data.facts)
            if isinstance(trainer.loop, TrainingLoop):
                outcome = _fit(trainer, settings, data.train, data.val)
            else:
                if data.val is None:
                    raise SettingError("data", ": has no validation data; choose data that have, or loop=training.")
                record.write_plan(describe_validation(trainer.loop, data), {})
                outcome = _validate(trainer, settings, data.val)
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
    _draw(request.directory)
    if not request.is_quiet:
        print_rows(outcome.rows)
        tell(closing_text(outcome.did, outcome.metrics, outcome.best, request.directory, request.trust.packages))
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


def _fit(trainer: Trainer, settings: RunSettings, train: Any, val: Any) -> _Outcome:
    result = trainer.fit(train, val, ckpt_path=settings.ckpt_path, init_from=settings.init_from)
    best = None if result.best is None else asdict(result.best)
    num_steps = result.plan.total_steps
    did = f"trained {num_steps:,} steps to global_step {result.global_step:,} in {result.seconds:.1f} s"
    if result.state == "stopped":
        did = f"stopped at global_step {result.global_step:,} after {result.seconds:.1f} s: {trainer.stop_reason}"
    return _Outcome(result.metrics, did, best)


def _validate(trainer: Trainer, settings: RunSettings, val: Any) -> _Outcome:
    if settings.ckpt_paths is None:
        if settings.ckpt_path is None:
            _log.warning("ckpt_path=null: the weights validated are those the model starts with.")
        metrics = trainer.validate(val, ckpt_path=settings.ckpt_path)
        return _Outcome(metrics, f"validated {settings.ckpt_path or 'the initial weights'}")
    rows = trainer.validate_all(val, ckpt_paths=settings.ckpt_paths)
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


def _objective(settings: RunSettings, metrics: Mapping[str, float]) -> float:
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


def _end_by(error: BaseException, record: RunRecord, live: _Live, request: RunRequest) -> Ended:
    state, exit_code = "failed", 1
    if isinstance(error, KeyboardInterrupt):
        state, exit_code = "interrupted", 130
    elif isinstance(error, SystemExit):
        state, exit_code = ("interrupted", 143) if error.code == 143 else ("failed", 1)
    elif isinstance(error, CheckpointError):
        exit_code = 3
    elif isinstance(error, SettingError):
        exit_code = 2
    said = state if state == "interrupted" else str(error) if exit_code in (2, 3) else one_line_of(error)
    log_only(f"{state}: {''.join(traceback.format_exception(error)).rstrip()}")
    trainer = live.trainer
    known: dict[str, Any] = {}
    if trainer is not None:
        best = None if trainer.best is None else asdict(trainer.best)
        known = {"global_step": trainer.global_step, "metrics": dict(trainer.metrics), "best": best}
    record.end(state, exit_code, error=said, **known)
    if not request.is_quiet:
        where = f" (traceback in {request.directory / 'run.log'})" if exit_code == 1 else ""
        where = f" (run directory: {request.directory})" if state == "interrupted" else where
        complain(f"{said}{where}")
    _draw(request.directory)
    return Ended(state=state, exit_code=exit_code, error=said)


def _draw(directory: Path) -> None:
    """Draw the curves. What was trained is as good without a picture, so nothing that goes wrong here ends a run."""
    try:
        draw_curves(directory)
    except Exception as error:  # noqa: BLE001  (a library's, a font's, a full disk's)
        _log.warning("curves.png: cannot be drawn: %s", one_line_of(error))
