"""Functions that convert predictions to the columns of a table, and write the table to a file."""

from __future__ import annotations

import csv
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy

from loopwright.errors import SettingError

Array = numpy.ndarray[Any, numpy.dtype[Any]]
_MAX_COLUMNS = 10_000
_ROWS_PER_PART = 10_000


def as_columns(predictions: Mapping[str, Array], target: Any) -> dict[str, Array]:
    """Return the columns of the table of predictions as arrays of text, by column name.

    In a one-dimensional array ``prediction``, the index of a class is replaced by the label of the class, and a
    standardised number is converted to the unit of the target column. An array with several numbers per sample gets
    one column for each number. If there is one number per class, the name of the column ends with the label, such as
    ``probability_cat``. Otherwise, the name of the column ends with an index, such as ``embedding_0``.

    Args:
        predictions: arrays with one row per sample, by name.
        target: entry ``target`` of ``data.json``: the labels of the classes, or the mean and the standard deviation of
            the target column. Any other value leaves the predictions unchanged.

    Raises:
        SettingError: for more than 10,000 columns.
    """
    known: Mapping[str, Any] = target if isinstance(target, Mapping) else {}
    classes = known.get("classes") if known.get("kind") == "category" else None
    labels = [str(each) for each in classes] if isinstance(classes, list) else []
    columns: dict[str, Array] = {}
    for name, array in predictions.items():
        if array.ndim == 1:
            columns[name] = _decoded(array, labels, known) if name == "prediction" else array.astype(str)
            continue
        rows = array.reshape(len(array), -1)
        if rows.shape[1] + len(columns) > _MAX_COLUMNS:
            expected = (
                f"expected at most {_MAX_COLUMNS:,} columns, found {rows.shape[1]:,} numbers per sample in {name}"
            )
            raise SettingError("predict", f": {expected}; use Trainer.predict in Python.")
        suffixes = labels if len(labels) == rows.shape[1] else range(rows.shape[1])
        columns |= {f"{name}_{suffix}": rows[:, place].astype(str) for place, suffix in enumerate(suffixes)}
    return columns


def _decoded(array: Array, labels: Sequence[str], target: Mapping[str, Any]) -> Array:
    if labels and array.dtype.kind in "iu" and (array < len(labels)).all() and (array >= 0).all():
        return numpy.array(labels, dtype=object)[array]
    mean, deviation = target.get("mean"), target.get("deviation")
    if array.dtype.kind == "f" and isinstance(mean, float | int) and isinstance(deviation, float | int):
        # Predictions have the precision of float32, so further digits of the product would have no meaning.
        return (array.astype(numpy.float64) * deviation + mean).astype(numpy.float32).astype(str)
    return array.astype(str)


def write_table(output: Path, key: str, keys: Sequence[int | str], columns: Mapping[str, Array]) -> None:
    """Write a CSV file. Rows are first written to a temporary file, so that ``output`` is never incomplete.

    Args:
        output: path of the new file.
        key: name of the first column.
        keys: values of the first column.
        columns: other columns by name.

    Raises:
        SettingError: if the file exists or cannot be written.
    """
    partial: str | None = None
    try:
        with tempfile.NamedTemporaryFile(
            "w", dir=output.parent, prefix=f".{output.name}.", delete=False, encoding="utf-8", newline=""
        ) as file:
            partial = file.name
            writer = csv.writer(file)
            writer.writerow([key, *columns])
            for first in range(0, len(keys), _ROWS_PER_PART):
                part = slice(first, first + _ROWS_PER_PART)
                writer.writerows(zip(keys[part], *(column[part] for column in columns.values()), strict=True))
        os.chmod(partial, 0o666 & ~_umask())
        os.link(partial, output)  # unlike a rename, a link never replaces an existing file
    except FileExistsError:
        raise SettingError("output", f"={str(output)!r}: exists already; name another file.") from None
    except OSError as error:
        raise SettingError("output", f"={str(output)!r}: cannot be written: {error.strerror}.") from error
    finally:
        if partial is not None:
            os.unlink(partial)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
