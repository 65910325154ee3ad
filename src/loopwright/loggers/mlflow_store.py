"""`MlflowStore`, which creates runs in a store of MLflow and asks what the store contains."""

from __future__ import annotations

import fcntl
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from loopwright.loggers.remote_logger import missing_package

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

RUN_TAG, SWEEP_TAG = "loopwright.run", "loopwright.sweep"
PARENT_TAG = "mlflow.parentRunId"
URI_VARIABLE = "MLFLOW_TRACKING_URI"
DATABASE = Path("outputs") / "mlflow.db"
STATUSES = {"completed": "FINISHED", "stopped": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
# MLflow would fill in the name of the user and of the program.
_HELD_BACK = {"mlflow.user": "", "mlflow.source.name": "", "mlflow.source.type": ""}
_FORBIDDEN = re.compile(r"[^A-Za-z0-9_ ./:-]")
_MAX_NAME = 250  # characters of a name
_MAX_VALUE = 6000  # characters of the value of a parameter
_MAX_PARAMETERS = 100  # parameters in one call
_RUN_ID = re.compile(r"[0-9a-f]{32}")
_PACKAGES = ("mlflow-skinny", "sqlalchemy", "alembic")


def check_mlflow() -> None:
    """Import MLflow and the packages of its database.

    Raises:
        ImportError: if a package is missing. The message names the extra to install.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # MLflow would report its use to its authors
    try:
        import alembic  # noqa: F401
        import mlflow.tracking  # noqa: F401
        import sqlalchemy  # noqa: F401
    except ImportError as error:
        raise missing_package("MLFlowLogger", error, "mlflow", _PACKAGES) from error
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # it logs each migration


def mlflow_name(name: str) -> str:
    """Return a name that MLflow accepts. Other characters than ``[A-Za-z0-9_ ./:-]`` are replaced by ``_``.

    >>> mlflow_name("val/größe/loss"), mlflow_name("/a//../b")
    ('val/gr__e/loss', 'a/b')
    """
    parts = _FORBIDDEN.sub("_", name).split("/")
    return ("/".join(part for part in parts if part not in ("", ".", "..")) or "_")[:_MAX_NAME]


class MlflowStore:
    """A store of MLflow: the one at ``MLFLOW_TRACKING_URI``, or else the SQLite database ``outputs/mlflow.db``.

    Args:
        experiment: name of the experiment, which is created if it does not exist.
    """

    def __init__(self, experiment: str) -> None:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        self._missing: type[Exception] = MlflowException
        uri = os.environ.get(URI_VARIABLE) or f"sqlite:///{DATABASE.absolute()}"
        with _opening(uri):
            self.client: MlflowClient = MlflowClient(tracking_uri=uri)
            found = self.client.get_experiment_by_name(experiment)
            self._experiment_id: str = (
                self.client.create_experiment(experiment) if found is None else found.experiment_id
            )

    def open_run(self, run_id: str | None, name: str, tags: Mapping[str, str]) -> str:
        """Open a run again, or create it. Return its ID.

        Args:
            run_id: recorded ID of the run; None for a new run.
            name: name of the run.
            tags: tags of the run. A run with the recorded ID but another tag is not used.
        """
        run = None if run_id is None else self.find_run(run_id, tags)
        if run is None:
            created = self.client.create_run(self._experiment_id, run_name=name, tags={**_HELD_BACK, **tags})
            return str(created.info.run_id)
        self.client.update_run(run.info.run_id, status="RUNNING")
        return str(run.info.run_id)

    def find_running(self, tags: Mapping[str, str]) -> str | None:
        """Return the ID of the newest run with these tags that is recorded as running; None if there is none."""
        conditions = [f"tags.`{key}` = '{value}'" for key, value in tags.items()]
        filter_string = " and ".join([*conditions, "attributes.status = 'RUNNING'"])
        found = self.client.search_runs([self._experiment_id], filter_string=filter_string, max_results=1)
        return str(found[0].info.run_id) if found else None

    def find_run(self, run_id: str, tags: Mapping[str, str]) -> Run | None:
        """Return the run with an ID and these tags; None if the store has no such run."""
        if _RUN_ID.fullmatch(run_id) is None:
            return None
        try:
            run = self.client.get_run(run_id)
        except self._missing:
            return None
        return run if all(run.data.tags.get(key) == value for key, value in tags.items()) else None

    def last_steps(self, run_id: str) -> dict[str, int]:
        """Return the last step of each metric of a run, by name."""
        names = self.client.get_run(run_id).data.metrics
        return {name: max(each.step for each in self.client.get_metric_history(run_id, name)) for name in names}

    def add_parameters(self, run_id: str, values: Mapping[str, str]) -> None:
        """Add the parameters that a run does not have. A parameter of MLflow cannot change."""
        from mlflow.entities import Param

        known = self.client.get_run(run_id).data.params
        new = {mlflow_name(name): value[:_MAX_VALUE] for name, value in values.items()}
        params = [Param(name, value) for name, value in new.items() if name not in known]
        for begin in range(0, len(params), _MAX_PARAMETERS):
            self.client.log_batch(run_id, params=params[begin : begin + _MAX_PARAMETERS], synchronous=True)

    def end_run(self, run_id: str, status: str) -> None:
        """Set the final status of a run: FINISHED, FAILED or KILLED."""
        self.client.set_terminated(run_id, status)

    def end_children(self, parent_id: str, status: str) -> None:
        """Set the final status of the runs of a sweep that are recorded as running, because they were killed."""
        filter_string = f"tags.`{PARENT_TAG}` = '{parent_id}' and attributes.status = 'RUNNING'"
        for run in self.client.search_runs([self._experiment_id], filter_string=filter_string):
            self.end_run(run.info.run_id, status)


@contextmanager
def _opening(uri: str) -> Iterator[None]:
    """Let one process at a time create or migrate a SQLite database. Several at once would disturb each other."""
    if not uri.startswith("sqlite:///"):
        yield
        return
    database = Path(uri.removeprefix("sqlite:///").partition("?")[0])
    database.parent.mkdir(parents=True, exist_ok=True)
    with open(database.with_name(f"{database.name}.lock"), "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released when the file is closed
        yield
