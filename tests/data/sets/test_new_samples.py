"""New rows and images are encoded as a run encoded its data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from loopwright.data import csv, image_folder, new_samples
from loopwright.errors import SettingError
from photos import write_photos

TABLE = "size,city,price\n" + "".join(f"{x},{city},{x}\n" for x in range(1, 6) for city in ("Rome", "Oslo"))


@pytest.fixture
def encoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    Path("old.csv").write_text(TABLE)
    return csv("old.csv", "price").encoding


def read(encoding: Any, text: str, **settings: Any) -> Any:
    Path("new.csv").write_text(text)
    return new_samples("new.csv", encoding, **settings)


def test_the_rows_of_the_training_are_encoded_alike(encoding: Any) -> None:
    splits = csv("old.csv", "price")
    samples = read(encoding, TABLE)
    new = samples.loader.dataset.tensors["features"]
    assert samples.key == "row" and list(samples.keys) == list(range(2, 12))
    known = torch.cat([splits.train.dataset.tensors["features"], splits.val.dataset.tensors["features"]])
    assert {tuple(row) for row in new.tolist()} == {tuple(row) for row in known.tolist()}


@pytest.mark.parametrize(
    "text",
    [
        "size,city\n1,Rome\n",
        "city,size\nRome,1\n",
        "city,note,size,price\nRome,anything,1,unknown\n",
        "\ufeffsize,city\n1,Rome\n",
    ],
)
def test_other_columns_and_the_target_are_ignored(encoding: Any, text: str) -> None:
    expected = read(encoding, TABLE).loader.dataset.tensors["features"][:1]
    assert torch.equal(read(encoding, text).loader.dataset.tensors["features"], expected)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("size\n1\n", "path='new.csv': lacks column city, which the run was trained with. Found: size."),
        ("sise,city\n1,Rome\n", "lacks column size, .* Did you mean sise"),
        ("a,b\n1,Rome\n", "lacks columns size, city"),
        (
            "size,city\n1,Roma\n",
            "row 2, column city='Roma': expected one of the categories .*: Oslo, Rome. Did you mean Rome",
        ),
        ("size,city\n1,Rome\nbig,Rome\n", "row 3, column size='big': expected a number; change it, or remove its row"),
        ("size,city\n,Rome\n", "row 2, column size: is empty; expected a value; change it, or remove its row"),
        ("size,city\n1e300,Rome\n", "row 2, column size=1e\\+300: is too large; .* change it, or remove its row"),
        ("size,city\n", "has no rows below the column names"),
        ("", "is empty; expected a row of column names"),
        ("size,city\n1\n", "row 2: expected 2 cells"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(encoding: Any, text: str, said: str) -> None:
    with pytest.raises(SettingError, match=said):
        read(encoding, text)


def test_a_table_with_one_column_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("old.csv").write_text("x,y\n1,2\n2,4\n3,6\n4,8\n5,9\n")
    assert read(csv("old.csv", "y").encoding, "x\n7\n").keys[0] == 2


def test_empty_cells_are_filled_as_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("old.csv").write_text("size,city,kind,price\n" + "1,Rome,a,1\n3,,a,2\n,Oslo,b,3\n" * 3)
    encoding = csv("old.csv", "price", missing="fill", standardizes=False).encoding
    features = read(encoding, "size,city,kind\n,,\n7,Rome,b\n").loader.dataset.tensors["features"]
    assert features.tolist() == [[1, 1, 0, 0, 1, 0], [7, 0, 0, 1, 0, 1]]
    with pytest.raises(SettingError, match="row 2, column price: is empty; expected a value; change it"):
        read(encoding, "size,city,kind,price\n1,Rome,a,\n", has_targets=True)
    with pytest.raises(SettingError, match="column city='Bern': expected one of the categories"):
        read(encoding, "size,city,kind\n1,Bern,a\n")


def test_new_tables_may_have_another_layout(encoding: Any) -> None:
    expected = read(encoding, "size,city\n1.5,Rome\n").loader.dataset.tensors["features"]
    samples = read(encoding, "size;city\n1,5;Rome\n", delimiter="semicolon", decimal="comma", text_encoding="ascii")
    assert torch.equal(samples.loader.dataset.tensors["features"], expected)
    with pytest.raises(SettingError, match=r"1234.5; use data.decimal=comma to read decimal commas\.$"):
        read(encoding, "size;city\n1,5;Rome\n", delimiter=";")


@pytest.mark.parametrize("folder", ["new/cat", "new"])
def test_images_are_read_from_a_folder_and_its_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_photos(tmp_path / "old")
    write_photos(tmp_path / "new", {"cat": 3, "any/deeper": 2})
    samples = new_samples(folder, image_folder("old", image_size=8).encoding or {})
    assert samples.key == "file" and len(samples.keys) == len(samples.loader.dataset) == (
        3 if folder == "new/cat" else 5
    )
    assert next(iter(samples.loader))["image"].shape == (len(samples.keys), 3, 8, 8)


def test_an_encoding_of_other_data_is_refused() -> None:
    with pytest.raises(
        SettingError, match="path='x': expected new samples of a run with data=csv or data=image_folder"
    ):
        new_samples("x", {"data": "digits"})
