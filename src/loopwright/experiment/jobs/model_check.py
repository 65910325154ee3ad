"""Whether a model takes the data of its run: looked at before anything is made, on a few rows and without weights."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.utils.data import default_collate

from loopwright.data import Loader, Splits
from loopwright.errors import DataError, SettingError
from loopwright.protocols import ChecksBatches

_NUM_ROWS = 64


def check_takes(model: nn.Module, data: Splits) -> None:
    """Refuse a model that does not fit its data, as far as that can be seen at no cost worth a name.

    Shapes and types are those of every row. Labels and tokens are those of some rows, spread evenly over the training
    data: reading all of them would take as long as a pass. Those that are seen only later end the run in the same
    words, with a run directory. What cannot be read is left to the run, whose log says why.

    Args:
        model: with or without weights; one that cannot check a batch is left to its run.
        data: of the run.

    Raises:
        SettingError: with the setting of ``model`` to change.
    """
    if not isinstance(model, ChecksBatches) or not isinstance(data.train, Loader):
        return
    try:
        batch = _some_rows(data.train.dataset)
    except DataError:
        return
    try:
        model.check_batch(batch)
    except SettingError as error:
        raise error.under("model") from None


def _some_rows(dataset: Any) -> Any:
    if not hasattr(dataset, "__getitems__"):  # read one by one: a file each, it may be
        return next(iter(Loader(dataset)))
    every = -(-len(dataset) // _NUM_ROWS)
    return default_collate(dataset.__getitems__(list(range(0, len(dataset), every))))
