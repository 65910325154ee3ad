"""`WandbLogger`: writes the values of a run for Weights & Biases, offline or online."""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loopwright.errors import SaveError, refuse
from loopwright.loggers.backlog import Point
from loopwright.loggers.remote_logger import RemoteLogger, missing_package
from loopwright.loggers.run_facts import RunFacts, read_facts
from loopwright.loggers.sender import Destination, Ending
from loopwright.loggers.sent_record import SentRecord
from loopwright.loggers.wandb_file import GLOBAL_STEP, WandbFile

if TYPE_CHECKING:
    import wandb

FOLDER = "wandb"
MODES = ("offline", "online")
_MAX_JOB_TYPE = 64  # characters; W&B refuses longer texts
_MAX_ID = 100  # characters
_FLUSH_SECONDS = 0.1  # from one write of W&B's service to its file to the next
_WRITE_SECONDS = 20.0  # longest wait for W&B's service to write values to its file
_LOOK_SECONDS = 0.02  # from one look at the file to the next
_UPLOAD_SECONDS = 25.0  # longest wait for an upload at the end of a run
_ALLOCATED = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_[0-9a-f]{6}(_sweep)?")  # folders with unique names
_VALID_ID = re.compile(r"[A-Za-z0-9._-]+")


class WandbLogger(RemoteLogger):
    """Writes the values of a run to ``wandb/`` in the run directory, from where ``wandb sync`` uploads them.

    With ``mode="online"``, they are also uploaded during the run. The jobs of a sweep form a group. W&B receives no
    host name, no user name, no source, no console output and no list of packages.

    Args:
        project: W&B project; None: the setting ``name`` of the run.
        entity: W&B user or team; None: the default of the W&B account.
        mode: "offline" or "online". Online needs an API key: ``wandb login``.
        on_error: reaction to an error: ``continue`` logs a warning once, and tries again at the next log step; ``stop``
            ends the run.

    Raises:
        ImportError: if wandb is missing when the trainer is built: ``pip install 'loopwright[wandb]'``.
        SettingError: if the trainer is built without a ``run_dir``.
    """

    file_name = "wandb.json"
    title = "W&B"
    waits_for_step = True  # W&B stores the values of a step together, and refuses values of an earlier step

    def __init__(
        self,
        project: str | None = None,
        entity: str | None = None,
        mode: str = "offline",
        on_error: str = "continue",
    ) -> None:
        super().__init__(on_error)
        if mode not in MODES:
            raise refuse("mode", mode, "'offline' or 'online'")
        self._project, self._entity, self._mode = project, entity, mode

    def check_packages(self) -> None:
        """Import wandb."""
        try:
            import wandb  # noqa: F401
        except ImportError as error:
            raise missing_package("WandbLogger", error, "wandb", ("wandb",)) from error

    def destination(self, run_dir: Path, before: SentRecord | None, note: Callable[[SentRecord], None]) -> Destination:
        """Return a run of W&B."""
        return _WandbRun(run_dir, before, note, self._project, self._entity, self._mode)


class _WandbRun:
    """A run of W&B, which a resumed run continues."""

    def __init__(
        self,
        run_dir: Path,
        before: SentRecord | None,
        note: Callable[[SentRecord], None],
        project: str | None,
        entity: str | None,
        mode: str,
    ) -> None:
        self._run_dir = run_dir.resolve()
        self._before = before
        self._note = note
        self._project, self._entity, self._mode = project, entity, mode
        self._id: str | None = None
        self._run: wandb.Run | None = None
        self._file: WandbFile | None = None

    def connect(self) -> Mapping[str, int]:
        """Begin a folder of W&B, and return the last steps in the earlier folders of the run."""
        import wandb

        folder = self._run_dir / FOLDER
        if folder.is_symlink():
            raise SaveError(f"{folder}: a link, and not written to; remove it or move it away.")
        facts = read_facts(self._run_dir)
        if self._id is None:
            self._id = self._choose_id(facts)
        last_steps = self._read_written()
        self._note(SentRecord(run_id=self._id, last_steps=last_steps))
        # Without this, W&B would report its own errors to its authors, also offline.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        if self._mode == "online" and not wandb.login(prompt=False):
            raise SaveError("no API key on this machine; run wandb login, or use mode=offline and later wandb sync")
        self._run = wandb.init(
            project=self._project or facts.experiment,
            entity=self._entity,
            id=self._id,
            name=facts.run_name,
            group=facts.sweep,
            job_type=(facts.label or "run")[:_MAX_JOB_TYPE],
            config=dict(facts.config),
            dir=str(self._run_dir),
            mode="online" if self._mode == "online" else "offline",
            resume="allow",
            settings=_settings(),
        )
        self._run.define_metric(GLOBAL_STEP)
        self._run.define_metric("*", step_metric=GLOBAL_STEP)
        self._file = WandbFile(Path(self._run.dir).parent / f"run-{self._id}.wandb")
        return last_steps

    def send(self, points: Sequence[Point]) -> None:
        """Log one row per step, and wait until the rows are in W&B's file."""
        run = self._run
        assert run is not None, "connected before"
        rows: dict[int, dict[str, Any]] = {}
        for point in points:
            rows.setdefault(point.step, {GLOBAL_STEP: point.step})[point.name] = point.value
        for step, row in rows.items():
            # A step of W&B that has ended cannot be continued. The charts use `global_step`, which is always exact.
            run.log(row, step=max(step, run.step), commit=True)
        self._wait_until(lambda file: all(point.step <= file.last_steps.get(point.name, -1) for point in points))

    def close(self, ending: Ending) -> None:
        """Write the summary and the exit code."""
        run = self._run
        assert run is not None, "connected before"
        run.summary.update(dict(ending.metrics))
        if ending.best is not None:
            name, value, step = ending.best
            run.summary.update({f"best/{name}": value, f"best/{GLOBAL_STEP}": step})
        run.finish(exit_code=ending.exit_code)
        self._wait_until(lambda file: file.has_ended)

    def _choose_id(self, facts: RunFacts) -> str:
        """Return the recorded ID of a resumed run. A new run gets its name, with random digits if it is not unique."""
        if self._before is not None and _VALID_ID.fullmatch(self._before.run_id or ""):
            return str(self._before.run_id)
        name = re.sub(r"[^A-Za-z0-9._-]", "_", facts.run_name)[:_MAX_ID]
        is_unique = _ALLOCATED.fullmatch(facts.sweep or facts.run_name) is not None
        is_used = any(self._run_dir.glob(f"{FOLDER}/*/*.wandb"))
        return name if is_unique and not is_used else f"{name}-{secrets.token_hex(3)}"

    def _read_written(self) -> dict[str, int]:
        """Return the last steps in W&B's files of this run; if they were removed, the recorded steps."""
        files = sorted(self._run_dir.glob(f"{FOLDER}/*/run-{self._id}.wandb"))
        if not files:
            return {} if self._before is None else dict(self._before.last_steps)
        last_steps: dict[str, int] = {}
        for path in files:
            file = WandbFile(path)
            file.read_further()
            for name, step in file.last_steps.items():
                last_steps[name] = max(step, last_steps.get(name, 0))
        return last_steps

    def _wait_until(self, is_written: Callable[[WandbFile], bool]) -> None:
        """Wait until W&B's service has written to its file. If the service is killed, all else is lost."""
        file = self._file
        assert file is not None, "connected before"
        until = time.monotonic() + _WRITE_SECONDS
        while True:
            file.read_further()
            if is_written(file):
                return
            if time.monotonic() > until:
                raise SaveError(f"{file.path}: W&B has not written the values within {_WRITE_SECONDS:g} s")
            time.sleep(_LOOK_SECONDS)


def _settings() -> wandb.Settings:
    """Return settings with which W&B records only what it is given."""
    import wandb

    return wandb.Settings(
        host="",
        x_disable_meta=True,
        x_disable_machine_info=True,
        x_disable_stats=True,
        x_save_requirements=False,
        x_transaction_log_flush_interval=_FLUSH_SECONDS,
        disable_git=True,
        disable_code=True,
        save_code=False,
        console="off",
        silent=True,
        symlink=False,
        reinit="create_new",
        finish_timeout=_UPLOAD_SECONDS,
        finish_timeout_raises=False,
    )
