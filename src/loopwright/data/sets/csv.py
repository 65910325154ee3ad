"""`csv`: reads a user's table as a data set in which each row is a sample."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from loopwright.data.reading.loader import Loader
from loopwright.data.sets.csv_table import KINDS, listed, read_table
from loopwright.data.sets.held_out import hold_out
from loopwright.data.sets.paths import find_file
from loopwright.data.sets.splits import Splits
from loopwright.data.sets.table import Table
from loopwright.data.sets.table_encoding import fit_table
from loopwright.data.sets.table_faults import BOTH_AS_CATEGORIES, Fault, Kind
from loopwright.data.sets.table_layout import read_layout
from loopwright.errors import SettingError, did_you_mean, refuse, refuse_type

# wine.csv: S. Aeberhard and M. Forina, "Wine", UCI Machine Learning Repository, 1992, CC BY 4.0. The column names are
# the names in scikit-learn; the three cultivars are called A, B and C.
_SHIPPED = "loopwright:"
_TABLES = Path(__file__).parent / "tables"


def csv(
    path: str,
    target: str,
    batch_size: int = 32,
    num_workers: int = 0,
    types: Mapping[str, Kind] | str | None = None,
    val_path: str | None = None,
    val_fraction: float = 0.2,
    standardizes: bool = True,
    delimiter: str = ",",
    decimal: str = ".",
    encoding: str = "utf-8",
    missing: str = "error",
) -> Splits:
    """Read a table of comma-separated values whose first row contains the column names.

    A batch is a dict with two entries: ``features``, a float32 tensor of shape (batch, features), and the target. If
    the target column contains categories, the target is ``label``, an int64 tensor of shape (batch,). If it contains
    numbers, the target is ``target``, a float32 tensor of shape (batch,). A column of numbers becomes one feature. A
    column of categories becomes one feature, 0 or 1, for each category in the training rows.

    Numbers, including a numeric target, are standardised with the mean and standard deviation of the training rows.
    A model that always predicts the mean then has a mean squared error of 1 on the training rows. A model predicts a
    numeric target in standard deviations of the target column. `MLPRegressor` multiplies the mean absolute error by its
    ``target_deviation``. ``splits.encoding``, which a run records as ``data.json``, contains the kinds, means, standard
    deviations, categories and classes of the columns, and the values that fill empty cells.

    Args:
        path: path of the table, relative to the current directory; ``loopwright:wine.csv`` is part of the package.
        target: name of the target column.
        batch_size: number of rows in a micro-batch, and in a validation batch.
        num_workers: number of dataloader worker processes; 0: the main process reads.
        types: column types by column name: ``number``, ``category`` or ``ignore``. A JSON string is also accepted,
            because Hydra cannot read all column names in an override. For any other column, the first value determines
            the type, and a cell of the other type is refused. A column of text is also refused if more than half of its
            cells, and more than 10, are different, or if its cells are numbers with decimal commas.
        val_path: path of a table with validation rows and the same columns. None: rows of ``path`` are held out.
        val_fraction: fraction of the rows held out for validation, at regular intervals (0.2: every fifth row); ignored
            if ``val_path`` is given.
        standardizes: whether numbers are shifted and scaled to mean 0 and standard deviation 1 over the training rows.
        delimiter: character between two cells, or its name: ``comma``, ``semicolon``, ``tab``, ``pipe`` or ``space``.
        decimal: ``point`` or ``comma``: the sign before the decimals of a number. With ``comma``, points may separate
            groups of three digits.
        encoding: text encoding of the table, such as ``utf-8``, ``latin-1`` or ``cp1252``.
        missing: ``error``: empty cells are refused. ``fill``: empty cells of the feature columns are filled. In a
            column of numbers, an empty cell or a cell such as ``NA`` becomes the median of the training rows. In a
            column of categories, an empty cell becomes the category "", or the most frequent category if the training
            rows have no empty cell.

    Raises:
        SettingError: for a missing or malformed table, with row and column in the message; for an unknown column. If
            several columns have faults, the message describes up to ten faults, and ends with the settings that repair
            the columns, if such settings exist.
    """
    if not isinstance(target, str):
        raise refuse_type("target", target, "the name of a column")
    if not isinstance(standardizes, bool):
        raise refuse_type("standardizes", standardizes, "true or false")
    types = _check_types(types)
    if missing not in ("error", "fill"):
        raise refuse("missing", missing, "error or fill")
    layout = read_layout(delimiter, decimal, encoding)
    file = find_table("path", path)
    fills = missing == "fill"
    table = read_table("path", path, file, target, types, layout, fills=fills, checks_categories=True)
    _check_target(table)
    hashes = {"sha256": table.sha256}
    if val_path is None:
        if len(table.rows) == 1:
            expected = "expected at least 2, one for training and one for validation"
            raise table.error(f": has 1 row below the column names; {expected}.")
        train_part, val_part = hold_out(len(table.rows), val_fraction)
        val_table, train_rows, val_rows = table, train_part.all_rows(), val_part.all_rows()
    else:
        val_table = _read_matching(table, val_path)
        hashes["val_sha256"] = val_table.sha256
        train_rows, val_rows = torch.arange(len(table.rows)), torch.arange(len(val_table.rows))
    fitted = fit_table(table, train_rows, standardizes=standardizes)
    train, val = fitted.encode(table, train_rows), fitted.encode(val_table, val_rows)
    return Splits(
        train=Loader(train, batch_size=batch_size, shuffle=True, num_workers=num_workers),
        val=Loader(val, batch_size=batch_size, num_workers=num_workers),
        facts={"path": path, **hashes, "num_features": len(fitted.feature_names)},
        encoding=fitted.to_json(),
    )


def find_table(setting: str, path: str) -> Path:
    """Return the file of a table; ``loopwright:NAME`` names a table of the package.

    Raises:
        SettingError: if there is no such file.
    """
    if not isinstance(path, str) or not path.startswith(_SHIPPED):
        return find_file(setting, path)
    shipped = sorted(os.listdir(_TABLES))
    name = path.removeprefix(_SHIPPED)
    if name not in shipped:
        raise refuse(setting, path, f"one of {', '.join(_SHIPPED + table for table in shipped)}")
    return _TABLES / name


def _check_types(given: Mapping[str, Kind] | str | None) -> Mapping[str, Kind]:
    types: Any = given
    if isinstance(given, str):
        try:
            types = json.loads(given)
        except (ValueError, RecursionError):
            raise refuse("types", given, 'a mapping, or JSON such as {"my column": "ignore"}') from None
    if types is not None and not isinstance(types, Mapping):
        raise refuse_type("types", types, "a mapping of columns to number, category or ignore")
    checked: dict[str, Kind] = dict(types or {})
    for name, kind in checked.items():
        if not isinstance(name, str):
            raise refuse_type("types", name, "strings as column names", f"write {str(name)!r}")
        if kind not in KINDS:
            raise refuse(f"types.{name}", kind, "number, category or ignore")
    return checked


def _check_target(table: Table) -> None:
    target = table.target
    if table.types.get(target) == "ignore":
        raise refuse("target", target, "a column that is not ignored", f"remove types.{target}=ignore")
    if target not in table.columns:
        columns = list(table.columns)
        hint = did_you_mean(target, columns)
        raise SettingError(
            "target", f"={target!r}: no such column in {table.path!r}. Available: {listed(columns)}.{hint}"
        )


def _read_matching(table: Table, val_path: str) -> Table:
    """Read the validation table, which must have the same columns as the training table."""
    file = find_table("val_path", val_path)
    found = read_table("val_path", val_path, file, table.target, table.types, table.layout, fills=table.fills)
    faults = []
    for name, column in table.columns.items():
        if name not in found.columns:
            raise found.error(f": lacks column {name}, which {table.path!r} has.{did_you_mean(name, found.columns)}")
        if found.columns[name].kind != column.kind:
            no_value = found.no_value(name, *found.columns[name].first) if column.kind == "number" else None
            kinds = f"has the type {found.columns[name].kind}, but the type {column.kind} in {table.path!r}"
            faults.append(no_value or Fault(f", column {name}: {kinds}", name, (BOTH_AS_CATEGORIES,)))
    if faults:
        raise found.refused(faults)
    for name in found.columns:
        if name not in table.columns:
            raise found.error(f": has a column {name}, which {table.path!r} lacks.")
    return found
