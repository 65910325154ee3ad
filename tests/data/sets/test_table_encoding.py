"""`TableEncoding`: what ``data.json`` records encodes rows to the bits that the run trained on, and decodes labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from loopwright.data import Splits, csv
from loopwright.data.sets.column_encoding import CategoryEncoding, ColumnEncoding, NumberEncoding
from loopwright.data.sets.csv_table import read_table
from loopwright.data.sets.table_encoding import TableEncoding, read_table_encoding
from loopwright.data.sets.table_layout import TableLayout
from loopwright.errors import SettingError
from loopwright.records import DATA_FILE, encoding_text, read_encoding

HOUSES = """area,city,id,rooms,price
0.1,Rome,a1,1,100.7
20,Bern,a2,2,2e5
1e-3,Rome,a3,10,300
40,"O s,lo",a4,2,400
60,Zürich,a5,9,900
-7,Bern,a6,10,123456.789
"""


def recorded(splits: Splits, folder: Path) -> TableEncoding:
    """Write the ``data.json`` of a run, and read the encoding from it."""
    assert splits.encoding is not None
    (folder / DATA_FILE).write_text(encoding_text(splits.encoding))
    found = read_encoding(folder)
    assert found is not None
    return read_table_encoding(found)


@pytest.mark.parametrize("standardizes", [True, False])
@pytest.mark.parametrize("target", ["price", "city"])
def test_the_recorded_encoding_gives_the_tensors_of_the_run(tmp_path: Path, target: str, standardizes: bool) -> None:
    file = tmp_path / "houses.csv"
    file.write_text(HOUSES)
    splits = csv(str(file), target, types={"id": "ignore", "rooms": "category"}, standardizes=standardizes)
    encoding = recorded(splits, tmp_path)
    assert encoding.ignored == ("id",)
    table = read_table("path", str(file), file, target, encoding.kinds, TableLayout())
    again = encoding.encode(table, torch.arange(6))
    is_val = torch.arange(6) == 4  # every fifth row is held out
    for name in ("features", "label" if target == "city" else "target"):
        assert torch.equal(again.tensors[name][~is_val], splits.train.dataset.tensors[name])
        assert torch.equal(again.tensors[name][is_val], splits.val.dataset.tensors[name])
    assert again.columns_text == splits.train.dataset.columns_text


def test_the_recorded_classes_decode_labels(tmp_path: Path) -> None:
    file = tmp_path / "houses.csv"
    file.write_text(HOUSES)
    splits = csv(str(file), "city", types={"id": "ignore"})
    target = recorded(splits, tmp_path).target
    assert isinstance(target, CategoryEncoding)
    labels = splits.train.dataset.tensors["label"]
    assert [target.categories[label] for label in labels] == ["Rome", "Bern", "Rome", "O s,lo", "Bern"]


def test_data_json_has_kinds_constants_and_the_unit_of_the_target(tmp_path: Path) -> None:
    file = tmp_path / "houses.csv"
    file.write_text("size,kind,id,price\n1,a,x,10\n3,b,y,30\n2,b,z,20\n")
    encoding = csv(str(file), "price", types={"id": "ignore"}, val_fraction=0.4).encoding
    assert encoding == {
        "data": "csv",
        "columns": [
            {"name": "size", "kind": "number", "mean": 2.0, "deviation": 1.0},
            {"name": "kind", "kind": "category", "categories": ["a", "b"]},
            {"name": "id", "kind": "ignore"},
        ],
        "target": {
            "name": "price",
            "kind": "number",
            "mean": 20.0,
            "deviation": 10.0,
            "unit": "standard deviations of price (1 = 10)",
        },
    }
    plain = csv(str(file), "price", val_fraction=0.4, standardizes=False, types={"id": "ignore"}).encoding
    assert plain is not None
    assert plain["target"] == {"name": "price", "kind": "number", "mean": 0.0, "deviation": 1.0, "unit": "price"}


numbers = st.builds(
    NumberEncoding,
    st.text(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(min_value=0, exclude_min=True, allow_infinity=False),
    st.none() | st.floats(allow_nan=False, allow_infinity=False),
)
names = st.lists(st.text(), unique=True).map(tuple)
categories = st.one_of(
    st.builds(CategoryEncoding, st.text(), names),
    st.builds(lambda name, known: CategoryEncoding(name, known, known[-1]), st.text(), names.filter(bool)),
)
columns: st.SearchStrategy[ColumnEncoding] = st.one_of(numbers, categories)


@given(st.lists(columns).map(tuple), st.lists(st.text()).map(tuple), columns)
def test_an_encoding_reads_back_equal(
    features: tuple[ColumnEncoding, ...], ignored: tuple[str, ...], target: ColumnEncoding
) -> None:
    encoding = TableEncoding(columns=features, ignored=ignored, target=target)
    assert read_table_encoding(json.loads(encoding_text(encoding.to_json()))) == encoding


NUMBER = {"name": "x", "kind": "number", "mean": 1, "deviation": 2}
TARGET = {"name": "y", "kind": "category", "classes": ["a", "b"]}


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({}, "columns=null: expected the list of columns that data=csv records."),
        ({"columns": ["x"]}, "columns[0]='x': expected a mapping with name and kind."),
        ({"columns": [{"kind": "number"}]}, "columns[0].name=null: expected the name of a column."),
        ({"columns": [NUMBER | {"kind": "date"}]}, "columns[0].kind='date': expected number, category or ignore."),
        ({"columns": [NUMBER | {"fill": "1"}]}, "columns[0].fill='1': expected a finite number."),
        (
            {"columns": [{"name": "x", "kind": "category", "categories": ["a"], "fill": "b"}]},
            "columns[0].fill='b': expected one of the categories.",
        ),
        ({"columns": [NUMBER | {"mean": "1"}]}, "columns[0].mean='1': expected a finite number."),
        ({"columns": [NUMBER | {"mean": True}]}, "columns[0].mean=True: expected a finite number."),
        ({"columns": [NUMBER | {"deviation": 0}]}, "columns[0].deviation=0.0: expected a number above 0."),
        (
            {"columns": [NUMBER], "target": NUMBER | {"kind": "ignore"}},
            "target.kind='ignore': expected number or categ",
        ),
        ({"columns": [NUMBER], "target": TARGET | {"classes": ["a", "a"]}}, "target.classes=['a', 'a']: expected a li"),
        ({"columns": [NUMBER], "target": TARGET | {"classes": None}}, "target.classes=null: expected a list of differ"),
    ],
)
def test_an_entry_of_another_kind_is_refused(found: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError) as caught:
        read_table_encoding(found)
    assert str(caught.value).startswith(message)
