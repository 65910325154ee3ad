"""Functions that compare a model with a sample of at most 64 rows of its training data before a run.

`fill_model` sets the model settings that the sample determines. `check_takes` checks that the model accepts the sample.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.utils.data import default_collate

from loopwright.data import Loader, Splits
from loopwright.errors import DataError, SettingError
from loopwright.experiment.jobs.job import Job
from loopwright.experiment.jobs.model_demands import check_demands, filled
from loopwright.loggers.lines import columns_of
from loopwright.protocols import ChecksBatches

_NUM_ROWS = 64
_ABOUT_COLUMNS = ("in_features", "model")  # a column of the wrong type can cause an error in these settings


def fill_model(data: Splits, job: Job) -> Job:
    """Return a copy of the job with the model settings that the data determine, and a note about these settings.

    Args:
        data: data of the run.
        job: job with a shipped model.
    """
    if not isinstance(data.train, Loader):
        return job
    try:
        batch = _some_rows(data.train.dataset)
    except DataError:
        return job
    return filled(batch, data, job)


def check_takes(model: nn.Module, data: Splits, job: Job) -> None:
    """Refuse a model that does not accept a sample of its training data.

    The sample contains at most 64 rows at regular intervals, because reading all rows takes as long as an epoch. All
    rows have equal shapes and dtypes, but labels and tokens differ between rows. If a row outside the sample has an
    invalid label or token, the run reports this row later, after the run directory has been created. If a row of the
    sample cannot be read, the check is skipped, and the run reports the error.

    Args:
        model: model with or without weights. A model that does not implement `ChecksBatches` is not checked.
        data: dataloaders of the run.
        job: job with this model and these data.

    Raises:
        SettingError: for settings of the model that do not fit the data. For a table, the message contains the type of
            each column.
    """
    if not isinstance(model, ChecksBatches) or not isinstance(data.train, Loader):
        return
    try:
        batch = _some_rows(data.train.dataset)
    except DataError:
        return
    try:
        check_demands(model, batch, data, job)
        model.check_batch(batch)
    except SettingError as error:
        columns = columns_of(data.train) if error.setting in _ABOUT_COLUMNS else None
        problem = error.problem if columns is None else f"{error.problem.removesuffix('.')} (columns: {columns})."
        raise SettingError(error.setting, problem).under("model") from None


def _some_rows(dataset: Any) -> Any:
    if not hasattr(dataset, "__getitems__"):  # read only the first row, because each row may be in a separate file
        return next(iter(Loader(dataset)))
    every = -(-len(dataset) // _NUM_ROWS)
    return default_collate(dataset.__getitems__(list(range(0, len(dataset), every))))
