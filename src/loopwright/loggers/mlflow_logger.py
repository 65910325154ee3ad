"""`MLFlowLogger`: writes the values of a run into a store of MLflow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from loopwright.errors import CheckpointError
from loopwright.loggers.backlog import Point
from loopwright.loggers.mlflow_store import (
    PARENT_TAG,
    RUN_TAG,
    STATUSES,
    SWEEP_TAG,
    MlflowStore,
    check_mlflow,
    mlflow_name,
)
from loopwright.loggers.remote_logger import RemoteLogger
from loopwright.loggers.run_facts import leaves_as_text, read_facts
from loopwright.loggers.sender import Destination, Ending
from loopwright.loggers.sent_record import SentRecord, read_sent
from loopwright.records import SWEEP_FILE, read_mapping

FILE = "mlflow.json"
_SWEEP_STATUSES = {"done": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}


class MLFlowLogger(RemoteLogger):
    """Writes the values of a run into the store of ``MLFLOW_TRACKING_URI``, else into ``outputs/mlflow.db``.

    ``mlflow ui --backend-store-uri sqlite:///outputs/mlflow.db`` shows the database. The settings are the parameters of
    the run. A sweep is a run whose children are the runs of its jobs. A resumed run continues its run in the store.
    The tags for user and source are empty.

    Args:
        experiment: experiment of MLflow; None: the setting ``name`` of the run.
        on_error: reaction to an error: ``continue`` logs a warning once, and tries again at the next log step; ``stop``
            ends the run.

    Raises:
        ImportError: if a package is missing when the trainer is built: ``pip install 'loopwright[mlflow]'``.
        SettingError: if the trainer is built without a ``run_dir``.
    """

    file_name = FILE
    title = "MLflow"

    def __init__(self, experiment: str | None = None, on_error: str = "continue") -> None:
        super().__init__(on_error)
        self._experiment = experiment

    def check_packages(self) -> None:
        """Import MLflow and the packages of its database."""
        check_mlflow()

    def sent_name(self, name: str) -> str:
        """Return a name that MLflow accepts."""
        return mlflow_name(name)

    def destination(self, run_dir: Path, before: SentRecord | None, note: Callable[[SentRecord], None]) -> Destination:
        """Return a run in the store."""
        return _MlflowRun(run_dir, before, note, self._experiment)

    def begin_sweep(self, sweep_dir: Path) -> None:
        """Create the database, the experiment and the run of a sweep, before its first job begins.

        Each job finds the run of the sweep by the file ``mlflow.json`` in the directory of the sweep.
        """
        check_mlflow()
        before, name = read_sent(sweep_dir / FILE), sweep_dir.resolve().name
        store = MlflowStore(self._experiment or _name_of(sweep_dir))
        run_id = store.open_run(None if before is None else before.run_id, name, {SWEEP_TAG: name})
        SentRecord(run_id=run_id).write(sweep_dir / FILE)

    def end_sweep(self, sweep_dir: Path, state: str) -> None:
        """Set the status of the run of a sweep, and of runs whose processes were killed.

        Args:
            sweep_dir: directory of the sweep.
            state: state of the sweep: "done", "failed" or "interrupted". In other states, nothing changes.
        """
        before, status = read_sent(sweep_dir / FILE), _SWEEP_STATUSES.get(state)
        if before is None or before.run_id is None or status is None:
            return
        store = MlflowStore(self._experiment or _name_of(sweep_dir))
        store.end_children(before.run_id, "KILLED" if status == "KILLED" else "FAILED")
        store.end_run(before.run_id, status)


class _MlflowRun:
    """A run in a store of MLflow, which a resumed run continues."""

    def __init__(
        self, run_dir: Path, before: SentRecord | None, note: Callable[[SentRecord], None], experiment: str | None
    ) -> None:
        self._run_dir = run_dir
        self._note = note
        self._experiment = experiment
        self._before = before
        self._run_id: str | None = None
        self._store: MlflowStore | None = None

    def connect(self) -> Mapping[str, int]:
        """Create the run or open it again, and return the last steps in the store."""
        facts = read_facts(self._run_dir)
        store = MlflowStore(self._experiment or facts.experiment)
        tags = {RUN_TAG: facts.run_name}
        if facts.sweep is not None and facts.sweep_dir is not None:
            tags[SWEEP_TAG] = facts.sweep
            parent = read_sent(facts.sweep_dir / FILE)
            if parent is not None and parent.run_id is not None:
                tags[PARENT_TAG] = parent.run_id
        before = self._run_id
        if before is None and self._before is not None:
            # A process that was killed may have created a run without recording its ID.
            before = self._before.run_id or store.find_running(tags)
        run_id = store.open_run(before, facts.run_name, tags)
        last_steps = store.last_steps(run_id)
        self._run_id = run_id
        self._note(SentRecord(run_id=run_id, last_steps=last_steps))
        store.add_parameters(run_id, leaves_as_text(facts.config))
        self._store = store
        return last_steps

    def send(self, points: Sequence[Point]) -> None:
        """Add values in one transaction."""
        from mlflow.entities import Metric

        assert self._store is not None and self._run_id is not None, "connected before"
        metrics = [Metric(point.name, point.value, int(point.seconds * 1000), point.step) for point in points]
        self._store.client.log_batch(self._run_id, metrics=metrics, synchronous=True)

    def close(self, ending: Ending) -> None:
        """Set the final status of the run."""
        assert self._store is not None and self._run_id is not None, "connected before"
        self._store.end_run(self._run_id, STATUSES[ending.state])


def _name_of(sweep_dir: Path) -> str:
    """Return the setting ``name`` of the jobs of a sweep."""
    try:
        name = read_mapping(sweep_dir / SWEEP_FILE).get("name")
    except CheckpointError:
        name = None
    return name if isinstance(name, str) and name else "loopwright"
