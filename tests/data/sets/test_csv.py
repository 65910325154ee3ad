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
from loopwright.data.sets.table_encoding import TableEncoding, read_table_encoding
from loopwright.data.sets.table_faults import Kind
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


def test_the_line_for_all_faults_of_a_table_repairs_it(write: Write) -> None:
    rows = [f"u{row};{'' if row == 3 else row};{'two' if row == 5 else 2};{row},5;1" for row in range(20)]
    path, layout = write("\n".join(["id;size;rooms;area;y", *rows])), {"delimiter": ";", "decimal": "comma"}
    types: dict[str, Kind] = {"rooms": "category", "id": "ignore"}
    splits = csv(path, "y", types=types, missing="fill", standardizes=False, **layout)
    columns = "size: number (1 empty cell filled), rooms: 2 categories, area: number; target y: number"
    assert splits.train.dataset.columns_text == columns


def test_empty_cells_are_filled_from_the_training_rows(write: Write) -> None:
    rows = [
        "1,Rome,a",
        ",Rome,a",
        "3,,b",
        "NA,Oslo,a",
        "n/a,,",
        "8,Rome,b",
        "9,Oslo,b",
        "2,Rome,b",
        "2,Rome,a",
        "100,,",
    ]
    path = write("\n".join(["x,city,kind,y", *(f"{row},{number}" for number, row in enumerate(rows))]))
    splits = csv(path, "y", missing="fill", standardizes=False)
    x, cities, kinds = splits.encoding["columns"]  # type: ignore[index]
    assert x == {"name": "x", "kind": "number", "mean": 0.0, "deviation": 1.0, "fill": 2.5}  # of 1, 3, 8, 9, 2, 2
    assert cities == {"name": "city", "kind": "category", "categories": ["", "Oslo", "Rome"], "fill": ""}
    assert kinds == {"name": "kind", "kind": "category", "categories": ["a", "b"], "fill": "a"}
    assert everything(splits.train)["features"][:4, 0].tolist() == [1, 2.5, 3, 2.5]
    assert everything(splits.train)["features"][2].tolist() == [3, 1, 0, 0, 0, 1]
    assert everything(splits.val)["features"].tolist() == [[2.5, 1, 0, 0, 1, 0], [100, 1, 0, 0, 1, 0]]
    scaled = everything(csv(path, "y", missing="fill").train)["features"][:, 0]
    assert scaled.mean().item() == pytest.approx(0, abs=1e-6)
    assert scaled.std(correction=0).item() == pytest.approx(1)


def test_words_for_missing_values_above_texts_are_categories(write: Write) -> None:
    splits = csv(write("x,y\nnone,1\nnone,2\ngold,3\n"), "y", val_fraction=0.4, types=None)
    assert encoding_of(splits).feature_names == ["x=none"]


def test_a_complete_table_is_encoded_alike_with_and_without_filling(write: Write) -> None:
    path = write(HOUSES)
    plain, filled = (everything(csv(path, "price", missing=missing).train) for missing in ("error", "fill"))
    assert torch.equal(plain["features"], filled["features"])


def test_decimal_commas_and_points_between_thousands_are_read(write: Write) -> None:
    path = write("x;y\n0,5;1\n-1.234,75;2\n,5;3\n12;4\n1,5e3;5\n")
    splits = csv(path, "y", delimiter="semicolon", decimal="comma", val_fraction=0.5, standardizes=False)
    train, val = (everything(part)["features"][:, 0].tolist() for part in (splits.train, splits.val))
    assert sorted(train + val) == [-1234.75, 0.5, 0.5, 12, 1500]


@pytest.mark.parametrize(("delimiter", "sign"), [("tab", "\t"), ("semicolon", ";"), ("pipe", "|"), ("space", " ")])
def test_a_delimiter_has_a_name(write: Write, delimiter: str, sign: str) -> None:
    splits = csv(write(f"x{sign}y\n" + f"1{sign}2\n" * 5), "y", delimiter=delimiter)
    assert encoding_of(splits).feature_names == ["x"]


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16", "UTF-8", "utf_8"])
def test_a_table_in_another_encoding_is_read(write: Write, encoding: str) -> None:
    path = write("café,y\n1,2\n2,3\n".encode(encoding))
    assert encoding_of(csv(path, "y", encoding=encoding, val_fraction=0.5)).feature_names == ["café"]


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
    "unnamed": (
        ",y\n1,2\n",
        {},
        "path='houses.csv', row 1: no name for column 1; expected a different name for each column.",
    ),
    "same name": (
        "y,y\n1,2\n",
        {},
        "path='houses.csv', row 1: several columns are called 'y'; expected a different name for each column.",
    ),
    "no names and equal names": (
        ",x,,y,x,y\n1,2,3,4,5,6\n",
        {},
        "path='houses.csv', row 1: no name for column 1, 3; several columns are called 'x', 'y'; expected a different "
        "name for each column.",
    ),
    "delimiter": (
        "x;y\n1;2\n",
        {},
        "path='houses.csv', row 1: has one column, 'x;y'; expected at least two columns, separated by comma; "
        "for another separator, use data.delimiter=semicolon.",
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
        "path='houses.csv': expected text in UTF-8, found a byte 0xe9; use data.encoding=latin-1, "
        "or save the table as UTF-8.",
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
        "use data.missing=fill to fill empty cells, or use 'data.types={x: ignore}' to leave the column out.",
    ),
    "missing below": (
        "x,y\n1,2\nN/A,3\n",
        {},
        "path='houses.csv', row 3, column x='N/A': represents a missing value; expected a number; "
        "use data.missing=fill to fill empty cells, or use 'data.types={x: ignore}' to leave the column out.",
    ),
    "missing above": (
        "x,y\nnan,2\nNA,2\n1,3\n",
        {},
        "path='houses.csv', row 2, column x='nan': represents a missing value; expected a number; "
        "use data.missing=fill to fill empty cells, or use 'data.types={x: ignore}' to leave the column out.",
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
        """use 'data.types='"'"'{"größe": "category"}'"'"'' to read both as categories.""",
    ),
    "a name that no JSON string in an override can hold": (
        "größe's,y\n1,2\nviel,3\n",
        {},
        "path='houses.csv', row 3, column größe's='viel': expected a number, because row 2 has '1'; "
        """use types: {"größe's": category} in a configuration file to read both as categories.""",
    ),
    "types that are no JSON": (
        "x,y\n1,2\n",
        {"types": "x: ignore"},
        'types=\'x: ignore\': expected a mapping, or JSON such as {"my column": "ignore"}.',
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
        "use data.missing=fill to fill empty cells, or use 'data.types={x: ignore}' to leave the column out.",
    ),
    "first cell empty": (
        "x,y\n,2\n",
        {},
        "path='houses.csv', column x: has no values; use 'data.types={x: ignore}' to leave the column out.",
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
        "rows, such as 'note 0'; use 'data.types={x: ignore}' to leave the column out, or use 'data.types={x: "
        "category}' to read its cells as categories.",
    ),
    "classes that are ids": (
        "x,y\n" + "".join(f"{row},u{row % 19}\n" for row in range(30)),
        {},
        "path='houses.csv', column y: expected numbers, or categories that repeat, found 19 different texts in 30 "
        "rows, such as 'u0'; use 'data.types={y: category}' to read its cells as categories.",
    ),
    "decimal commas": (
        "x;y\n0,5;1\n-1.234,75;2\n,5;3\n",
        {"delimiter": ";"},
        "path='houses.csv', row 2, column x='0,5': expected numbers with a decimal point, such as 1234.5; use "
        "data.decimal=comma to read decimal commas, or use 'data.types={x: ignore}' to leave the column out, or use "
        "'data.types={x: category}' to read its cells as categories.",
    ),
    "decimal commas below whole numbers": (
        "x;y\n5;1\n0,5;2\n",
        {"delimiter": ";"},
        "path='houses.csv', row 3, column x='0,5': expected numbers with a decimal point, such as 1234.5; use "
        "data.decimal=comma to read decimal commas, or use 'data.types={x: ignore}' to leave the column out.",
    ),
    "decimal commas of the target": (
        "x;y\n1;0,5\n2;0,7\n",
        {"delimiter": ";"},
        "path='houses.csv', row 2, column y='0,5': expected numbers with a decimal point, such as 1234.5; use "
        "data.decimal=comma to read decimal commas, or use 'data.types={y: category}' to read its cells as categories.",
    ),
    "decimal commas beside decimal points": (
        "x;z;y\n0,5;1.5;1\n0,7;2;2\n",
        {"delimiter": "semicolon"},
        "path='houses.csv', row 2, column x='0,5': expected numbers with a decimal point, such as 1234.5; replace the "
        "decimal commas of the column, or use 'data.types={x: ignore}' to leave the column out, or use "
        "'data.types={x: category}' to read its cells as categories.",
    ),
    "decimal points": (
        "x;y\n0.5;1\n0.7;2\n",
        {"delimiter": "semicolon", "decimal": "comma"},
        "path='houses.csv', row 2, column x='0.5': expected numbers with a decimal comma, such as 1234,5; use "
        "data.decimal=point to read decimal points, or use 'data.types={x: ignore}' to leave the column out, or use "
        "'data.types={x: category}' to read its cells as categories.",
    ),
    "several faults": (
        "size,kind,city,y\n1,a,,1\nbig,b,Rome,n/a\n3,7,,2\n4,c\n",
        {},
        "path='houses.csv', row 3, column size='big': expected a number, because row 2 has '1'. Also: row 2, column "
        "city: is empty; expected a value. Also: row 3, column y='n/a': represents a missing value; expected a number; "
        "change it, or remove its row. Also: row 4, column kind='7': expected text, because row 2 has 'a'. "
        "Also: row 5: expected 4 cells, one for each column name, found 2. To repair the other columns, type "
        "data.missing=fill 'data.types={size: category, kind: category}'.",
    ),
    "empty cells, mixed types, an id and decimal commas": (
        "id;size;rooms;area;y\n"
        + "".join(f"u{row};{'' if row == 3 else row};{'two' if row == 5 else 2};{row},5;1\n" for row in range(20)),
        {"delimiter": ";"},
        "path='houses.csv', row 5, column size: is empty; expected a value. Also: row 7, column rooms='two': expected "
        "a number, because row 2 has '2'. Also: column id: expected numbers, or categories that repeat, found 20 "
        "different texts in 20 rows, such as 'u0'. Also: row 2, column area='0,5': expected numbers with a decimal "
        "point, such as 1234.5. To repair all of this, type data.decimal=comma data.missing=fill "
        "'data.types={rooms: category, id: ignore}'.",
    ),
    "an empty cell in a column of both types": (
        "x,z,y\n1,,1\n,1,1\ntwo,1,2\n",
        {},
        "path='houses.csv', row 2, column z: is empty; expected a value. Also: row 4, column x='two': expected a "
        "number, because row 2 has '1'. To repair all of this, type data.missing=fill 'data.types={x: category}'.",
    ),
    "many faults": (
        ",".join(f"c{number}" for number in range(12)) + ",y\n" + "1," * 12 + "1\n" + "a," * 12 + "2\n",
        {},
        "path='houses.csv', "
        + " Also: ".join(
            f"row 3, column c{number}='a': expected a number, because row 2 has '1'." for number in range(10)
        )
        + " Also: 2 more. To repair all of this, type 'data.types={"
        + ", ".join(f"c{number}: category" for number in range(12))
        + "}'.",
    ),
    "many categories": (
        "x,z,y\n" + "".join(f"note {row // 3},n{row // 3},{row}\n" for row in range(1200)),
        {},
        "path='houses.csv', column x: expected at most 256 categories, found 400. Also: column z: expected at most 256 "
        "categories, found 400. To repair all of this, type 'data.types={x: ignore, z: ignore}'.",
    ),
    "empty training rows": (
        "x,y\n" + ",1\n" * 4 + "1,1\n",
        {"missing": "fill"},
        "path='houses.csv', column x: is empty in all training rows; use 'data.types={x: ignore}' to leave the column "
        "out.",
    ),
    "empty target": (
        "x,y\n1,1\n1,\n",
        {"missing": "fill"},
        "path='houses.csv', row 3, column y: is empty; expected a value; change it, or remove its row.",
    ),
    "first cell of the target empty": (
        "x,y\n1,\n1,2\n",
        {"missing": "fill"},
        "path='houses.csv', row 2, column y: is empty; expected a value; change it, or remove its row.",
    ),
    "missing setting": ("", {"missing": "mean"}, "missing='mean': expected error or fill."),
    "decimal": ("", {"decimal": ";"}, "decimal=';': expected point or comma."),
    "encoding": (
        "",
        {"encoding": "latin_x"},
        "encoding='latin_x': expected the name of a text encoding, such as utf-8, latin-1 or cp1252.",
    ),
    "not a text encoding": (
        "",
        {"encoding": "hex"},
        "encoding='hex': expected the name of a text encoding, such as utf-8, latin-1 or cp1252.",
    ),
    "Windows": (
        "x,y\n1,5 €\n".encode("cp1252"),
        {},
        "path='houses.csv': expected text in UTF-8, found a byte 0x80; use data.encoding=cp1252, or save the table as "
        "UTF-8.",
    ),
    "UTF-16": (
        "x,y\n1,2\n".encode("utf-16"),
        {},
        "path='houses.csv': expected text in UTF-8, found a null character; use data.encoding=utf-16.",
    ),
    "another encoding": (
        "x,y\n1,caf\xe9\n".encode("latin-1"),
        {"encoding": "ascii"},
        "path='houses.csv': expected text in ASCII, found a byte 0xe9; set data.encoding to the encoding of the table.",
    ),
    "delimiters": (
        "",
        {"delimiter": ", "},
        "delimiter=', ': expected one of comma, semicolon, tab, pipe, space, or one character other than a "
        "quotation mark or a line break.",
    ),
    "quotation mark": (
        "",
        {"delimiter": '"'},
        "delimiter='\"': expected one of comma, semicolon, tab, pipe, space, or one character other than a quotation "
        "mark or a line break.",
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
            "area,city,rooms,price\nNA,Rome,1,1\n2,Rome,1,1\n",
            "price",
            ", row 2, column area='NA': represents a missing value; expected a number; "
            "use data.missing=fill to fill empty cells, or use 'data.types={area: ignore}' to leave the column out.",
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
