"""`csv`: the tensors that columns become, and the errors for wrong tables."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import special
from loopwright.data import Loader, Splits, csv
from loopwright.data.sets.column_encoding import NumberEncoding
from loopwright.data.sets.csv_table import Kind
from loopwright.data.sets.table_encoding import TableEncoding, read_table_encoding
from loopwright.errors import SettingError

Write = Callable[..., str]

HOUSES = """area,city,rooms,price
10,Rome,1,100
20,Bern,2,200
30,Rome,3,300
40,Oslo,4,400
60,Bern,9,900
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Return a function that writes a table into the current directory and returns its name."""
    monkeypatch.chdir(tmp_path)

    def write(text: str | bytes, name: str = "houses.csv") -> str:
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return name

    return write


def everything(loader: Loader) -> dict[str, Tensor]:
    batch: dict[str, Tensor] = loader.dataset.__getitems__(list(range(len(loader.dataset)))).batch
    return batch


def encoding_of(splits: Splits) -> TableEncoding:
    assert splits.encoding is not None
    return read_table_encoding(splits.encoding)


def classes_of(splits: Splits) -> list[str]:
    assert splits.encoding is not None
    classes: list[str] = splits.encoding["target"]["classes"]
    return classes


def test_numbers_are_standardised_with_the_training_rows_only(write: Write) -> None:
    splits = csv(write(HOUSES), "price")
    train, val = everything(splits.train), everything(splits.val)
    encoding = encoding_of(splits)
    assert encoding.feature_names == ["area", "city=Bern", "city=Oslo", "city=Rome", "rooms"]
    assert isinstance(encoding.target, NumberEncoding)
    area = torch.tensor([10.0, 20, 30, 40])
    expected = (area - 25) / area.std(correction=0)
    assert torch.allclose(train["features"][:, 0], expected)
    assert torch.allclose(train["target"], expected)
    assert val["features"][0, 0].item() == pytest.approx((60 - 25) / area.std(correction=0).item())
    assert (val["target"] * encoding.target.deviation + encoding.target.mean).item() == pytest.approx(900)
    assert train["features"][:, 1:4].tolist() == [[0, 0, 1], [1, 0, 0], [0, 0, 1], [0, 1, 0]]
    assert {value.dtype for value in train.values()} == {torch.float32}


def test_numbers_are_unchanged_without_standardizes(write: Write) -> None:
    train = everything(csv(write(HOUSES), "price", standardizes=False).train)
    assert train["target"].tolist() == [100, 200, 300, 400]
    assert train["features"][:, 4].tolist() == [1, 2, 3, 4]


def test_a_category_as_target_becomes_labels(write: Write) -> None:
    splits = csv(write(HOUSES), "city", types={"rooms": "category", "area": "ignore"})
    assert classes_of(splits) == ["Bern", "Oslo", "Rome"]
    assert everything(splits.train)["label"].tolist() == [2, 0, 2, 1]
    assert everything(splits.val)["label"].tolist() == [0]
    assert encoding_of(splits).feature_names == ["rooms=1", "rooms=2", "rooms=3", "rooms=4", "price"]
    assert everything(splits.val)["features"][0, :4].tolist() == [0, 0, 0, 0]  # no training row has 9 rooms
    assert splits.facts["num_features"] == 5


def test_categories_that_are_numbers_are_sorted_by_value(write: Write) -> None:
    rows = "".join(f"{10 - row},{row}\n" for row in range(10))
    splits = csv(write("y,x\n" + rows), "y", types={"y": "category"})
    assert classes_of(splits) == [str(number) for number in range(1, 11)]


def test_the_advice_for_several_faults_repairs_all_of_them(write: Write) -> None:
    path = write("size,kind,city,y\n1,a,,1\nbig,b,Rome,2\n3,7,,2\n")
    types: dict[str, Kind] = {"city": "ignore", "size": "category", "kind": "category"}
    splits = csv(path, "y", types=types, val_fraction=0.4, standardizes=False)
    assert splits.train.dataset.columns_text == "size: 2 categories, kind: 2 categories; target y: number"


def test_a_column_with_many_categories_is_accepted_if_its_type_is_given_or_they_repeat(write: Write) -> None:
    unique = "".join(f"u{row},{row}\n" for row in range(20))
    ids = csv(write("x,y\n" + unique), "y", types={"x": "category"})
    assert ids.train.dataset.columns_text == "x: 16 categories; target y: number in standard deviations (1 = 5.701)"
    repeated = csv(write("x,y\n" + 2 * unique), "y", standardizes=False)
    assert repeated.train.dataset.columns_text == "x: 16 categories; target y: number"
    few = csv(write("x,y\n" + "".join(f"u{row},{row}\n" for row in range(10))), "y", standardizes=False)
    assert few.train.dataset.columns_text == "x: 8 categories; target y: number"


def test_a_table_of_validation_rows_may_have_other_categories_in_each_row(write: Write) -> None:
    rows = "".join(f"u{row},{row}\n" for row in range(20))
    write("x,y\n" + rows, "val.csv")
    assert len(csv(write("x,y\n" + 3 * rows), "y", val_path="val.csv").val.dataset) == 20


def test_the_first_columns_of_a_wide_table_are_described(write: Write) -> None:
    names = [f"c{number}" for number in range(25)]
    path = write("\n".join([",".join([*names, "y"]), *[",".join(["1"] * 25 + [kind]) for kind in "abab"]]))
    text = csv(path, "y", val_fraction=0.5).val.dataset.columns_text
    assert text.startswith("c0: number, c1: number, ")
    assert text.endswith("c19: number, and 5 more columns; target y: 2 classes")


def test_a_constant_column_becomes_zero(write: Write) -> None:
    train = everything(csv(write("x,z,y\n" + "7,0.1,1\n7,0.1,2\n" * 4), "y").train)
    assert len(train["features"]) == 7  # the computed mean of seven values 0.1 is not 0.1
    assert train["features"].abs().max() == 0


def test_quotes_blanks_delimiters_and_a_byte_order_mark_are_read(write: Write) -> None:
    text = '\ufeff"a; b"; y\n 1 ; "two\nlines"\n\n2;B\n3;B\n4;B\n5;B\n'
    splits = csv(write(text), "y", delimiter=";", standardizes=False)
    assert encoding_of(splits).feature_names == ["a; b"]
    assert classes_of(splits) == ["B", "two\nlines"]
    assert everything(splits.train)["features"][:, 0].tolist() == [1, 2, 3, 4]


def test_validation_rows_can_come_from_a_second_table(write: Write) -> None:
    write("area,city,rooms,price\n50,Paris,5,500\n", "val.csv")
    splits = csv(write(HOUSES), "price", val_path="val.csv", standardizes=False)
    assert (len(splits.train.dataset), len(splits.val.dataset)) == (5, 1)
    assert everything(splits.val)["features"].tolist() == [[50, 0, 0, 0, 5]]
    hashes = [hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in ("houses.csv", "val.csv")]
    assert [splits.facts["sha256"], splits.facts["val_sha256"]] == hashes


def test_the_shipped_table_is_the_wine_data_of_scikit_learn() -> None:
    from sklearn.datasets import load_wine

    splits = csv("loopwright:wine.csv", "cultivar", standardizes=False)
    values, labels = load_wine(return_X_y=True)
    is_val = torch.arange(178) % 5 == 4
    assert torch.equal(everything(splits.train)["features"], torch.tensor(values, dtype=torch.float32)[~is_val])
    assert torch.equal(everything(splits.val)["label"], torch.tensor(labels)[is_val])


WRONG: dict[str, tuple[str | bytes, dict[str, Any], str]] = {
    "missing": ("", {"path": "house.csv"}, "path='house.csv': no such file. Did you mean houses.csv?"),
    "folder": ("", {"path": "."}, "path='.': expected a file."),
    "no path": ("", {"path": 3}, "path=3: expected the path of a file."),
    "not shipped": ("", {"path": "loopwright:w.csv"}, "path='loopwright:w.csv': expected one of loopwright:wine.csv."),
    "empty": ("", {}, "path='houses.csv': is empty; expected a row of column names, and rows below it."),
    "no rows": ("x,y\n", {}, "path='houses.csv': has no rows below the column names; expected at least one."),
    "one row": (
        "x,y\n1,2\n",
        {},
        "path='houses.csv': has 1 row below the column names; expected at least 2, one for training and one for "
        "validation.",
    ),
    "no names": (
        "1,2\n3,4\n",
        {},
        "path='houses.csv', row 1: expected the names of the columns, found numbers; add a first row with names.",
    ),
    "unnamed": (",y\n1,2\n", {}, "path='houses.csv', row 1: column 1 has no name; expected a name for each column."),
    "same name": (
        "y,y\n1,2\n",
        {},
        "path='houses.csv', row 1: two columns are called 'y'; expected different names.",
    ),
    "delimiter": (
        "x;y\n1;2\n",
        {},
        "path='houses.csv', row 1: has one column, 'x;y'; expected at least two columns, separated by ','; "
        "set delimiter for another separator.",
    ),
    "short row": (
        "x,y\n1,2\n\n3\n",
        {},
        "path='houses.csv', row 4: expected 2 cells, one for each column name, found 1.",
    ),
    "quote": ('x,y\n1,"2\n', {}, "path='houses.csv', row 2: unexpected end of data."),
    "bytes": (
        b"x,y\n1,caf\xe9\n",
        {},
        "path='houses.csv': expected text in UTF-8, found a byte 0xe9; save the table as UTF-8.",
    ),
    "odd number": (
        "x,y\n1,2\nmany,3\n",
        {},
        "path='houses.csv', row 3, column x='many': expected a number, because row 2 has '1'; "
        "use 'data.types={x: category}' to read both as categories.",
    ),
    "nan": (
        "x,y\n1,2\nnan,3\n",
        {"types": {"x": "number"}},
        "path='houses.csv', row 3, column x='nan': represents a missing value; expected a number; "
        "use 'data.types={x: ignore}' to leave the column out.",
    ),
    "missing below": (
        "x,y\n1,2\nN/A,3\n",
        {},
        "path='houses.csv', row 3, column x='N/A': represents a missing value; expected a number; "
        "use 'data.types={x: ignore}' to leave the column out.",
    ),
    "missing above": (
        "x,y\nnan,2\nNA,2\n1,3\n",
        {},
        "path='houses.csv', row 2, column x='nan': represents a missing value; expected a number; "
        "use 'data.types={x: ignore}' to leave the column out.",
    ),
    "infinite": (
        "x,y\n1,2\n2,-inf\n",
        {"types": {"x": "category"}},
        "path='houses.csv', row 3, column y='-inf': expected a finite number; change it, or remove its row.",
    ),
    "beyond float64": (
        "x,y,z\n1,2,3\n1e400,3,4\n",
        {"types": {"z": "ignore"}},
        "path='houses.csv', row 3, column x='1e400': expected a finite number; "
        "use 'data.types={z: ignore, x: ignore}' to leave the column out.",
    ),
    "beyond float32": (
        "x,y\n1,2\n1e300,3\n" + "1,2\n" * 9,
        {"standardizes": False},
        "path='houses.csv', row 3, column x=1e+300: is too large; expected a number in the range of float32; "
        "use 'data.types={x: ignore}' to leave the column out.",
    ),
    "beyond float32 in validation": (
        "x,y\n1,2\n2,2\n3,2\n4,2\n1e300,2\n",
        {},
        "path='houses.csv', row 6, column x=1e+300: is too large; expected a number in the range of float32; "
        "use 'data.types={x: ignore}' to leave the column out.",
    ),
    "spread beyond float64": (
        "x,y\n1,2\n2,1e200\n" + "1,2\n" * 9,
        {},
        "path='houses.csv', column y: its standard deviation is not finite (its largest number is 1e+200); "
        "expected smaller numbers; change it, or remove its row.",
    ),
    "a name that no override can hold": (
        "größe,y\n1,2\nviel,3\n",
        {},
        "path='houses.csv', row 3, column größe='viel': expected a number, because row 2 has '1'; "
        'use types: {"größe": category} in a configuration file to read both as categories.',
    ),
    "underscore": (
        "x,y\n1_0,2\n",
        {"types": {"x": "number"}},
        "path='houses.csv', row 2, column x='1_0': expected a number; "
        "use 'data.types={x: ignore}' to leave the column out.",
    ),
    "odd text": (
        "x,y\na,2\n7,3\n",
        {},
        "path='houses.csv', row 3, column x='7': expected text, because row 2 has 'a'; "
        "use 'data.types={x: category}' to read both as categories.",
    ),
    "empty cell": (
        "x,y\n1,2\n ,3\n",
        {},
        "path='houses.csv', row 3, column x: is empty; expected a value; "
        "use 'data.types={x: ignore}' to leave the column out.",
    ),
    "first cell empty": (
        "x,y\n,2\n",
        {},
        "path='houses.csv', row 2, column x: is empty; expected a value; "
        "use 'data.types={x: ignore}' to leave the column out.",
    ),
    "target": (
        HOUSES,
        {"target": "prise"},
        "target='prise': no such column in 'houses.csv'. Available: area, city, rooms, price. Did you mean price?",
    ),
    "ignored target": (
        HOUSES,
        {"target": "price", "types": {"price": "ignore"}},
        "target='price': expected a column that is not ignored; remove types.price=ignore.",
    ),
    "typed column": (
        HOUSES,
        {"target": "price", "types": {"aera": "number"}},
        "types.aera: no such column. Available: area, city, rooms, price. Did you mean area?",
    ),
    "type": (
        HOUSES,
        {"target": "price", "types": {"area": "float"}},
        "types.area='float': expected number, category or ignore.",
    ),
    "types": ("", {"types": ["x"]}, "types=['x']: expected a mapping of columns to number, category or ignore."),
    "type of a number": (
        "",
        {"types": {3: "number"}},
        "types=3: expected strings as column names; write '3'.",
    ),
    "two targets": ("", {"target": ["y"]}, "target=['y']: expected the name of a column."),
    "standardizes": ("", {"standardizes": "no"}, "standardizes='no': expected true or false."),
    "no features": (
        "x,y\n1,2\n" * 1 + "1,2\n" * 9,
        {"types": {"x": "ignore"}},
        "path='houses.csv': expected a feature column besides y; all other columns are ignored.",
    ),
    "notes": (
        "x,y\n" + "".join(f"note {row},{row}\n" for row in range(400)),
        {},
        "path='houses.csv', column x: expected numbers, or categories that repeat, found 400 different texts in 400 "
        "rows; use 'data.types={x: ignore}' to leave the column out, or use 'data.types={x: category}' to read its "
        "cells as categories.",
    ),
    "classes that are ids": (
        "x,y\n" + "".join(f"{row},u{row % 19}\n" for row in range(30)),
        {},
        "path='houses.csv', column y: expected numbers, or categories that repeat, found 19 different texts in 30 "
        "rows; use 'data.types={y: category}' to read its cells as categories.",
    ),
    "decimal commas": (
        "x;y\n0,5;1\n-1.234,75;2\n,5;3\n",
        {"delimiter": ";"},
        "path='houses.csv', row 2, column x='0,5': expected numbers with a decimal point, such as 1234.5; replace the "
        "decimal commas of the column, or use 'data.types={x: category}' to read its cells as categories.",
    ),
    "decimal commas below whole numbers": (
        "x;y\n5;1\n0,5;2\n",
        {"delimiter": ";"},
        "path='houses.csv', row 3, column x='0,5': expected numbers with a decimal point, such as 1234.5; replace the "
        "decimal commas of the column, or use 'data.types={x: ignore}' to leave the column out.",
    ),
    "decimal commas of the target": (
        "x;y\n1;0,5\n2;0,7\n",
        {"delimiter": ";"},
        "path='houses.csv', row 2, column y='0,5': expected numbers with a decimal point, such as 1234.5; replace the "
        "decimal commas of the column, or use 'data.types={y: category}' to read its cells as categories.",
    ),
    "several faults": (
        "size,kind,city,y\n1,a,,1\nbig,b,Rome,n/a\n3,7,,2\n4,c\n",
        {},
        "path='houses.csv', row 2, column city: is empty; expected a value; use 'data.types={city: ignore}' to leave "
        "the column out. Also: row 3, column size='big': expected a number, because row 2 has '1'; "
        "use 'data.types={city: ignore, size: category}' to read both as categories. Also: row 3, column y='n/a': "
        "represents a missing value; expected a number; change it, or remove its row. Also: row 4, column kind='7': "
        "expected text, because row 2 has 'a'; use 'data.types={city: ignore, size: category, kind: category}' to read "
        "both as categories. Also: row 5: expected 4 cells, one for each column name, found 2.",
    ),
    "a fault and an id": (
        "id,x,y\n" + "".join(f"u{row},{row or ''},{row}\n" for row in range(20)),
        {},
        "path='houses.csv', row 2, column x: is empty; expected a value; use 'data.types={x: ignore}' to leave the "
        "column out. Also: column id: expected numbers, or categories that repeat, found 20 different texts in 20 "
        "rows; use 'data.types={x: ignore, id: ignore}' to leave the column out, or use 'data.types={x: ignore, id: "
        "category}' to read its cells as categories.",
    ),
    "many categories": (
        "x,y\n" + "".join(f"note {row // 3},{row}\n" for row in range(1200)),
        {},
        "path='houses.csv', column x: expected at most 256 categories, found 400; "
        "use 'data.types={x: ignore}' to leave the column out.",
    ),
    "delimiters": (
        "",
        {"delimiter": ", "},
        "delimiter=', ': expected one character other than a quotation mark or a line break.",
    ),
    "quotation mark": (
        "",
        {"delimiter": '"'},
        """delimiter='"': expected one character other than a quotation mark or a line break.""",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_table_is_reported_in_one_line_with_file_row_and_column(write: Write, case: str) -> None:
    text, settings, line = WRONG[case]
    path = write(text)
    with pytest.raises(ValueError) as caught:
        csv(**{"path": path, "target": "y", **settings})
    assert str(caught.value) == line


@pytest.mark.parametrize(
    ("text", "target", "line"),
    [
        (
            "area,city,rooms,price\n1,Paris,1,1\n",
            "city",
            ", row 2, column city='Paris': expected one of the classes in the training table: Bern, Oslo, Rome.",
        ),
        (
            "aera,city,rooms,price\n1,Rome,1,1\n",
            "city",
            ": lacks column area, which 'houses.csv' has. Did you mean aera?",
        ),
        ("area,city,rooms,price,id\n1,Rome,1,1,1\n", "city", ": has a column id, which 'houses.csv' lacks."),
        (
            "area,city,rooms,price\n1,3,1,1\n",
            "price",
            ", column city: has the type number, but the type category in 'houses.csv'; "
            "use 'data.types={city: category}' to read both as categories.",
        ),
        (
            "area,city,rooms,price\nNA,Rome,1,1\n",
            "price",
            ", row 2, column area='NA': represents a missing value; expected a number; "
            "use 'data.types={area: ignore}' to leave the column out.",
        ),
    ],
)
def test_a_validation_table_that_does_not_match_is_refused(write: Write, text: str, target: str, line: str) -> None:
    write(text, "val.csv")
    with pytest.raises(ValueError) as caught:
        csv(write(HOUSES), target, val_path="val.csv")
    assert str(caught.value) == f"val_path='val.csv'{line}"


@pytest.mark.timeout(30)
@pytest.mark.parametrize("kind", [*special.KINDS, "holes"])
def test_a_table_that_never_ends_is_refused(kind: str, write: Write, tmp_path: Path) -> None:
    special.make(tmp_path / "table.csv", kind)
    problem = "cannot be read: 1,099,511,627,776 bytes; expected at most" if kind == "holes" else "expected a file"
    with pytest.raises(SettingError, match=f"path='table.csv': {problem}"):
        csv("table.csv", target="y")


@pytest.mark.timeout(30)
@pytest.mark.parametrize("start", ["", "x,y\n1,2\n"])
def test_a_table_with_holes_is_refused(start: str, write: Write, tmp_path: Path) -> None:
    name = write(start)
    os.truncate(tmp_path / name, 1 << 26)
    line = f"path={name!r}: expected text in UTF-8, found a null character; save the table as UTF-8."
    with pytest.raises(SettingError) as caught:
        csv(name, target="y")
    assert str(caught.value) == line
