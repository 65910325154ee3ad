"""`csv`: a user's table as data, one row a sample."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch

from loopwright.data.reading.loader import Loader
from loopwright.data.sets.columns import Encoder
from loopwright.data.sets.csv_table import KINDS, Kind, Table, read_table
from loopwright.data.sets.held_out import hold_out
from loopwright.data.sets.paths import find_file
from loopwright.data.sets.splits import Splits
from loopwright.errors import SettingError, did_you_mean, refuse, refuse_type

# wine.csv: S. Aeberhard and M. Forina, "Wine", UCI Machine Learning Repository, 1992, CC BY 4.0; with the names of the
# columns that scikit-learn gives them, and the three cultivars called A, B and C.
_SHIPPED = "loopwright:"
_TABLES = Path(__file__).parent / "tables"


def csv(
    path: str,
    target: str,
    batch_size: int = 32,
    num_workers: int = 0,
    types: Mapping[str, Kind] | None = None,
    val_path: str | None = None,
    val_fraction: float = 0.2,
    standardizes: bool = True,
    delimiter: str = ",",
) -> Splits:
    """Read a table of comma-separated values whose first row is the names of its columns.

    A batch is a mapping: ``features``, float32, batch x features; and ``label``, int64, batch, where the target is a
    category, or ``target``, float32, batch, where it is a number. A column of numbers makes one feature; one of
    categories makes a feature of 0 and 1 for each category that the training rows have.

    Numbers, the target's too, are standardised by the mean and the standard deviation of the training rows, and by
    those alone; a mean squared error of 1 is then that of predicting the mean. ``splits.train.dataset.encoding`` has
    the names of the features, those of the classes, and what a prediction is to be multiplied by and added to.

    Args:
        path: of the file, from the current directory; ``loopwright:wine.csv`` is a table that comes with the package.
        target: name of the column to be predicted.
        batch_size: rows in a micro-batch, and in a validation batch.
        num_workers: processes that read ahead; 0 reads in this one.
        types: column to ``number``, ``category`` or ``ignore``; a column not named is what its first cell is, and a
            cell of the other kind is refused.
        val_path: a table of validation rows, with the same columns. None: some rows of ``path`` are held out.
        val_fraction: of the rows held out, evenly spread, for 0.2 every fifth; not used with ``val_path``.
        standardizes: whether numbers are standardised.
        delimiter: between two cells.

    Raises:
        SettingError: for a missing or malformed table, with row and column; for a column that is not there.
    """
    if not isinstance(target, str):
        raise refuse_type("target", target, "the name of a column")
    if not isinstance(standardizes, bool):
        raise refuse_type("standardizes", standardizes, "true or false")
    types = _check_types(types)
    if not isinstance(delimiter, str) or len(delimiter) != 1 or delimiter in '"\r\n':
        raise refuse("delimiter", delimiter, "one character")
    table = read_table("path", path, _find("path", path), target, types, delimiter)
    _check_target(table)
    hashes = {"sha256": table.sha256}
    if val_path is None:
        train_part, val_part = hold_out(len(table.rows), val_fraction)
        val_table, train_rows, val_rows = table, train_part.all_rows(), val_part.all_rows()
    else:
        val_table = _read_alike(table, val_path, delimiter)
        hashes["val_sha256"] = val_table.sha256
        train_rows, val_rows = torch.arange(len(table.rows)), torch.arange(len(val_table.rows))
    encoder = Encoder(table, target, train_rows, standardizes=standardizes)
    train, val = encoder.encode(table, train_rows), encoder.encode(val_table, val_rows)
    return Splits(
        train=Loader(train, batch_size=batch_size, shuffle=True, num_workers=num_workers),
        val=Loader(val, batch_size=batch_size, num_workers=num_workers),
        facts={"path": path, **hashes, "num_features": len(encoder.encoding.feature_names)},
    )


def _find(setting: str, path: str) -> Path:
    if not isinstance(path, str) or not path.startswith(_SHIPPED):
        return find_file(setting, path)
    shipped = sorted(os.listdir(_TABLES))
    name = path.removeprefix(_SHIPPED)
    if name not in shipped:
        raise refuse(setting, path, f"one of {', '.join(_SHIPPED + table for table in shipped)}")
    return _TABLES / name


def _check_types(types: Mapping[str, Kind] | None) -> Mapping[str, Kind]:
    if types is not None and not isinstance(types, Mapping):
        raise refuse_type("types", types, "a mapping of columns to number, category or ignore")
    for name, kind in (types or {}).items():
        if not isinstance(name, str):
            raise refuse_type("types", name, "the names of columns as texts", f"write {str(name)!r}")
        if kind not in KINDS:
            raise refuse(f"types.{name}", kind, "number, category or ignore")
    return types or {}


def _check_target(table: Table) -> None:
    target = table.target
    if table.types.get(target) == "ignore":
        raise refuse("target", target, f"a column that is read; types.{target} says ignore")
    if target not in table.columns:
        columns = list(table.columns)
        listed = ", ".join(columns)
        hint = did_you_mean(target, columns)
        raise SettingError("target", f"={target!r}: no such column in {table.path!r}. Available: {listed}.{hint}")


def _read_alike(table: Table, val_path: str, delimiter: str) -> Table:
    """The validation table, which must have the columns of the training table."""
    found = read_table("val_path", val_path, _find("val_path", val_path), table.target, table.types, delimiter)
    for name, column in table.columns.items():
        if name not in found.columns:
            raise found.fault(f": has no column {name}, as {table.path!r} has.{did_you_mean(name, found.columns)}")
        if found.columns[name].kind != column.kind:
            if column.kind == "number" and (no_value := found.no_value(name, *found.columns[name].first)):
                raise no_value
            kinds = f"holds a {found.columns[name].kind} where {table.path!r} holds a {column.kind}"
            raise found.fault(f", column {name}: {kinds}; {found.typed(name, 'category')} reads both as categories.")
    for name in found.columns:
        if name not in table.columns:
            raise found.fault(f": has a column {name}, which {table.path!r} has not.")
    return found
