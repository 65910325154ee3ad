"""Tables that declare or contain far too much are refused soon, and wide tables are read."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from limited import limited
from loopwright.data import csv
from loopwright.data.sets.csv_table import MAX_COLUMNS
from loopwright.errors import SettingError


def many_names(file: Path) -> None:
    file.write_text(",".join(f"c{i}" for i in range(300_000)) + "\n1,2\n")


def many_equal_names(file: Path) -> None:
    file.write_text(",".join(["c"] * 300_000) + "\n1,2\n")


def many_numbers(file: Path) -> None:
    file.write_text(",".join(map(str, range(300_000))) + "\n1,2\n")


def a_later_row_of_many_cells(file: Path) -> None:
    file.write_text("a,b\n" + ",".join(["1"] * 3_000_000) + "\n")


def a_name_of_a_megabyte(file: Path) -> None:
    file.write_text("c" * 100_000 + "\n1\n")


def holes(file: Path) -> None:
    file.write_text("a,b\n1,2\n")
    os.truncate(file, 3 << 40)


def fewer_holes(file: Path) -> None:
    file.write_text("a,b\n1,2\n")
    os.truncate(file, 1 << 30)


def linked_holes(file: Path) -> None:
    holes(file.with_suffix(".far"))
    file.symlink_to(file.with_suffix(".far"))


ATTACKS: dict[Callable[[Path], None], str] = {
    many_names: "row 1: names 300,000 columns; expected at most 50,000.",
    many_equal_names: "row 1: names 300,000 columns; expected at most 50,000.",
    many_numbers: "row 1: names 300,000 columns; expected at most 50,000.",
    a_later_row_of_many_cells: "row 2: expected 2 cells, one for each column name, found 3,000,000.",
    a_name_of_a_megabyte: "row 1: has one column, 'ccc",
    holes: "cannot be read: 3,298,534,883,328 bytes; expected at most 4,294,967,296.",
    fewer_holes: "cannot be read: almost none of its 1,073,741,824 bytes are on the disk.",
    linked_holes: "cannot be read: 3,298,534,883,328 bytes; expected at most 4,294,967,296.",
}


def _refusal(file: Path) -> tuple[str, float]:
    start = time.process_time()
    try:
        csv(str(file), "c0")
    except SettingError as error:
        return str(error), time.process_time() - start
    raise AssertionError("the table was read")


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_table_that_is_far_too_large_is_refused_soon(attack: Callable[[Path], None], tmp_path: Path) -> None:
    attack(tmp_path / "table.csv")
    said, seconds = limited(_refusal, tmp_path / "table.csv", timeout_seconds=20)
    assert ATTACKS[attack].replace("3,000,000", "3000000") in said and "\n" not in said
    assert seconds < 2


@pytest.mark.parametrize(
    ("settings", "setting"), [({"target": "d"}, "target"), ({"types": {"d": "number"}}, "types.d")]
)
def test_only_some_of_many_names_are_listed(settings: dict[str, str], setting: str, tmp_path: Path) -> None:
    names = [f"c{i}" for i in range(5_000)]
    (tmp_path / "table.csv").write_text(f"{','.join(names)}\n{','.join(['1'] * 5_000)}\n")
    with pytest.raises(SettingError) as caught:
        csv(**({"path": str(tmp_path / "table.csv"), "target": "c0"} | settings))  # type: ignore[arg-type]
    assert str(caught.value).startswith(setting) and "c48, c49 and 4,950 more." in str(caught.value)
    assert len(str(caught.value)) < 1_000


def test_a_wide_table_is_read(tmp_path: Path) -> None:
    assert MAX_COLUMNS >= 2_000
    names = [f"c{i}" for i in range(2_000)]
    rows = [",".join(str(row + i) for i in range(2_000)) for row in range(5)]
    (tmp_path / "table.csv").write_text("\n".join([",".join(names), *rows]) + "\n")
    assert csv(str(tmp_path / "table.csv"), "c0").facts["num_features"] == 1_999
