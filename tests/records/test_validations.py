"""`write_validations` and `draw_validations`, and the files of a run that validates many checkpoints."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from loopwright.records.validations import draw_validations, write_validations

ROWS = [
    {"checkpoint": f"run/checkpoints/step_{step:08d}", "dataloader": name, "metrics": {f"{name}/loss": value}}
    for step, value in ((100, 0.25), (50, 1 / 3))
    for name in ("val", "val/extra")
]


def test_the_file_has_a_line_for_each_checkpoint_and_dataloader_with_all_digits(tmp_path: Path) -> None:
    rows = [*ROWS, {"checkpoint": "mine", "dataloader": "val", "metrics": {"val/loss": math.nan, "val/accuracy": 1.0}}]
    write_validations(tmp_path, rows)
    lines = list(csv.DictReader((tmp_path / "validations.csv").read_text().splitlines()))
    assert list(lines[0]) == ["checkpoint", "step", "dataloader", "loss", "accuracy"]
    assert [line["step"] for line in lines] == ["100", "100", "50", "50", ""]
    assert [line["loss"] for line in lines] == ["0.25", "0.25", repr(1 / 3), repr(1 / 3), "NaN"]
    assert lines[1]["dataloader"] == "val/extra" and lines[4]["accuracy"] == "1.0" and lines[0]["accuracy"] == ""


def test_the_picture_needs_two_checkpoints_with_a_step(tmp_path: Path) -> None:
    assert draw_validations(tmp_path, ROWS[:2]) is None and not (tmp_path / "validations.png").exists()
    assert draw_validations(tmp_path, [{**row, "checkpoint": "mine"} for row in ROWS]) is None
    picture = draw_validations(tmp_path, ROWS)
    assert picture is not None and picture.read_bytes().startswith(b"\x89PNG")
