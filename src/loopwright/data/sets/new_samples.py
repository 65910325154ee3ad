"""`new_samples`: reads samples for a trained model, and encodes the samples like the data of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from loopwright.data.reading.loader import Loader
from loopwright.data.sets.column_encoding import CategoryEncoding
from loopwright.data.sets.csv import find_table
from loopwright.data.sets.csv_table import listed, read_column_names, read_table
from loopwright.data.sets.image_folder import ImageFolder, list_images, list_labelled_images
from loopwright.data.sets.table import Table
from loopwright.data.sets.table_encoding import TableEncoding, read_table_encoding
from loopwright.data.sets.table_faults import Kind
from loopwright.data.sets.table_layout import TableLayout, read_layout
from loopwright.data.sets.tensors import TensorData
from loopwright.errors import SettingError, did_you_mean, refuse, refuse_type

_SETTING = "path"


@dataclass(frozen=True, slots=True)
class NewSamples:
    """Samples for a trained model, in order.

    Attributes:
        loader: dataloader of the samples.
        key: kind of the entries in ``keys``: ``row`` (row number in a table) or ``file`` (path of an image).
        keys: row number or path of each sample.
    """

    loader: Loader
    key: str
    keys: Sequence[int | str]


def new_samples(
    path: str,
    encoding: Mapping[str, Any],
    batch_size: int = 32,
    num_workers: int = 0,
    delimiter: str = ",",
    decimal: str = ".",
    text_encoding: str = "utf-8",
    *,
    has_targets: bool = False,
) -> NewSamples:
    """Read new samples, and encode them like the samples of a run.

    Args:
        path: path of a table, or of a folder that contains images or folders of images. Columns that the run does not
            use are ignored.
        encoding: content of ``data.json`` of the run, whose data were read by ``csv`` or ``image_folder``.
        batch_size: number of samples in a batch.
        num_workers: number of dataloader worker processes.
        delimiter: character between two cells of a table, or its name, as in `csv`.
        decimal: decimal sign of a table, as in `csv`.
        text_encoding: text encoding of a table, as ``encoding`` in `csv`.
        has_targets: whether targets are read: the target column of a table, or the folder of each image, which must be
            a class of the run. Otherwise, the target column is ignored and may be missing, and each label is 0.

    Raises:
        SettingError: for a missing or unreadable file, a missing column, an unknown category or class, or a wrong cell,
            with row and column in the message. Also if ``encoding`` does not describe a table or images.
        DataError: raised later, when an image that cannot be decoded is read.
    """
    if encoding.get("data") == "csv":
        known = read_table_encoding(encoding)
        layout = read_layout(delimiter, decimal, text_encoding)
        table = _read_rows(path, known, layout, has_targets=has_targets)
        rows = torch.arange(len(table.rows))
        data = known.encode(table, rows) if has_targets else TensorData({"features": known.features(table, rows)})
        return NewSamples(Loader(data, batch_size, num_workers=num_workers), "row", table.rows)
    if encoding.get("data") == "image_folder":
        files, labels = _list_files(path, encoding.get("target"), has_targets=has_targets)
        image = encoding.get("image")
        if not isinstance(image, Mapping):
            raise refuse("image", image, "image_size and channels, as data=image_folder records them")
        images = ImageFolder(files, labels, image.get("image_size", 0), image.get("channels", 0))
        return NewSamples(Loader(images, batch_size, num_workers=num_workers), "file", files)
    raise refuse(_SETTING, path, "new samples of a run with data=csv or data=image_folder")


def _list_files(path: str, target: Any, *, has_targets: bool) -> tuple[list[str], list[int]]:
    """Return the images in a folder, and their labels."""
    if not has_targets:
        files = list_images(_SETTING, path)
        return files, [0] * len(files)
    classes = target.get("classes") if isinstance(target, Mapping) else None
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise refuse_type("target.classes", classes, "the list of classes that data=image_folder records")
    files, labels, _ = list_labelled_images(_SETTING, path, classes)
    return files, labels


def _read_rows(path: str, known: TableEncoding, layout: TableLayout, *, has_targets: bool) -> Table:
    """Read a table with the columns of ``known``."""
    file = find_table(_SETTING, path)
    names = read_column_names(_SETTING, path, file, layout)
    columns = (*known.columns, known.target) if has_targets else known.columns
    needed: dict[str, Kind] = {column.name: column.kind for column in columns}
    missing = [name for name in needed if name not in names]
    if missing:
        hint = did_you_mean(missing[0], names)
        problem = (
            f"lacks {'columns' if len(missing) > 1 else 'column'} {listed(missing)}, which the run was trained with"
        )
        raise SettingError(_SETTING, f"={path!r}: {problem}. Found: {listed(names)}.{hint}")
    types: dict[str, Kind] = {name: needed.get(name, "ignore") for name in names}
    target = known.target.name
    table = read_table(_SETTING, path, file, target, types, layout, fills=known.fills, has_fixed_types=True)
    for column in known.columns:
        if isinstance(column, CategoryEncoding):
            _check_categories(table, column)
    return table


def _check_categories(table: Table, known: CategoryEncoding) -> None:
    """Refuse a category that the run was not trained with."""
    column = table.columns[known.name]
    for category, code in column.categories.items():
        if category not in known.categories and (category or known.fill is None):
            where = f", row {table.rows[column.codes.index(code)]}, column {known.name}={category!r}"
            expected = f"one of the categories that the run was trained with: {listed(known.categories)}"
            raise table.error(f"{where}: expected {expected}.{did_you_mean(category, known.categories)}")
