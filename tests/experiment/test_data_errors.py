"""Data as a user configures them: what is wrong is said before anything runs, and the shipped example learns."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from command import Answer, run_dirs
from photos import write_photos

Cli = Callable[..., Answer]
QUICK = ("loop.max_steps=4", "loop.eval_frequency=2", "checkpoint=none", "loggers=json_lines")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A table, photos and tensors beside each other, in the directory of the command."""
    (tmp_path / "houses.csv").write_text("area,price\n" + "".join(f"{row},{2 * row}\n" for row in range(20)))
    (tmp_path / "broken.csv").write_text("area,price\n1,2\n3,four\n")
    (tmp_path / "hollow.csv").write_text("area,price\n")
    write_photos(tmp_path / "photos", size=(8, 8))
    (tmp_path / "none").mkdir()
    save_file({"features": torch.randn(20, 3), "target": torch.randn(20)}, tmp_path / "rows.safetensors")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["data=csv", "data.path=house.csv", "data.target=price"],
            "data.path='house.csv': no such file. Did you mean houses.csv?",
        ),
        (
            ["data=csv", "data.path=houses.csv", "data.target=prize"],
            "data.target='prize': no such column in 'houses.csv'. Available: area, price. Did you mean price?",
        ),
        (
            ["data=csv", "data.path=broken.csv", "data.target=price"],
            "data.path='broken.csv', row 3, column price='four': expected a number, as row 2 has '2'; "
            "types={price: category} reads both as categories.",
        ),
        (
            ["data=csv", "data.path=hollow.csv", "data.target=price"],
            "data.path='hollow.csv': has no rows below the column names; expected at least one.",
        ),
        (
            ["data=csv", "data.path=houses.csv", "data.target=price", "data.types={aera:ignore}"],
            "data.types.aera: no such column. Available: area, price. Did you mean area?",
        ),
        (["data=csv", "data.target=price"], "data.path=???: this must be given."),
        (["data=image_folder", "data.path=photo"], "data.path='photo': no such folder. Did you mean photos?"),
        (
            ["data=image_folder", "data.path=none"],
            "data.path='none': expected a folder for each class, with images in it; found no folders.",
        ),
        (
            ["data=tensor_file", "data.path={x: rows.npy}"],
            "data.path.x='rows.npy': no such file.",
        ),
        (["data=synthetic_tokens", "data.noise=2"], "data.noise=2: expected a fraction in [0, 1]."),
    ],
)
def test_wrong_data_are_one_line_exit_2_and_leave_nothing(cli: Cli, files: Path, words: list[str], line: str) -> None:
    before = sorted(files.iterdir())
    answer = cli(*words)
    assert (answer.code, answer.out, answer.err) == (2, "", f"{line}\n")
    assert sorted(files.iterdir()) == before


@pytest.mark.parametrize(
    "words",
    [
        ["data=csv", "data.path=houses.csv", "data.target=price", "model=mlp_regressor", "model.in_features=1"],
        ["data=csv", "data.path=houses.csv", "data.target=price", "+data.types.price=category", "model.in_features=1"],
        ["data=image_folder", "data.path=photos", "data.image_size=8", "data.channels=1", "data.flip_fraction=0.5"],
        ["data=tensor_file", "data.path=rows.safetensors", "model=mlp_regressor", "model.in_features=3"],
        ["data=synthetic_regression", "model=mlp_regressor"],
        ["data=synthetic", "data.num_train=1000000000"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_each_kind_of_data_trains(cli: Cli, files: Path, words: list[str]) -> None:
    classes = ["model.num_classes=20"] if "model=mlp_regressor" not in words else []
    answer = cli(*words, *classes, *QUICK)
    assert (answer.code, answer.err) == (0, "")
    (run_dir,) = run_dirs(files)
    assert json.loads((run_dir / "summary.json").read_text())["metrics"]["val/loss"] > 0


def test_tokens_too_many_for_memory_are_planned_without_being_made(cli: Cli) -> None:
    answer = cli("plan", "data=synthetic_tokens", "data.num_train=1000000000", "data.batch_size=1000")
    assert answer.code == 0
    assert "1,000" in answer.out


def test_the_example_of_a_table_learns_which_wine_it_is(cli: Cli, tmp_path: Path) -> None:
    answer = cli("experiment=csv_example", "loop.max_steps=100", "checkpoint=none", "loggers=json_lines")
    assert (answer.code, answer.err) == (0, "")
    (run_dir,) = run_dirs(tmp_path)
    summary = json.loads((run_dir / "summary.json").read_text())
    assert run_dir.parent.name == "csv_example"
    assert summary["metrics"]["val/accuracy"] > 0.9
    assert summary["data"]["path"] == "loopwright:wine.csv"
    assert len(summary["data"]["sha256"]) == 64
