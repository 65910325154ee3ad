"""Data as a user configures them: each kind trains, and the shipped example learns."""

from __future__ import annotations

import json
import shlex
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
    write_photos(tmp_path / "photos", size=(8, 8))
    save_file({"features": torch.randn(20, 3), "target": torch.randn(20)}, tmp_path / "rows.safetensors")
    return tmp_path


@pytest.mark.slow
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
    answer = cli("plan", "model=gpt", "data=synthetic_tokens", "data.num_train=1000000000", "data.batch_size=1000")
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


@pytest.mark.slow
@pytest.mark.parametrize("name", ["b", "alcohol (%)", "a=b, c: d", "a\\{b}[c]"])
def test_what_is_said_of_a_column_is_an_override_that_works(cli: Cli, tmp_path: Path, name: str) -> None:
    (tmp_path / "odd.csv").write_text(f'"{name}",id,y\n1,x,0\nfew,7,0\n2,z,1\n3,x,1\n4,x,1\n')
    words = ["plan", "data=csv", "data.path=odd.csv", "data.target=y", "model=mlp_regressor"]
    first = cli(*words)
    second = cli(*words, override_in(first.err))
    third = cli(*words, override_in(second.err), "model.in_features=7")
    assert f"{name}='few': expected a number" in first.err
    assert "row 3, column id='7': expected a text" in second.err
    assert (third.code, third.err) == (0, "")


def override_in(said: str) -> str:
    """The override that an error proposes, as a shell reads it."""
    (word,) = shlex.split(said[said.index("; 'data.types") + 1 : said.rindex("' reads") + 1])
    return word


@pytest.mark.slow
def test_changed_content_is_not_resumed_but_a_run_without_a_hash_is(cli: Cli, files: Path) -> None:
    words = ["data=tensor_file", "data.path=rows.safetensors", "model=mlp_regressor", "model.in_features=3"]
    assert cli(*words, "loop.max_steps=4", "loggers=json_lines", "hydra.run.dir=run").code == 0
    save_file({"features": torch.randn(20, 3), "target": torch.randn(20)}, files / "rows.safetensors")
    summary = files / "run" / "summary.json"
    found = json.loads(summary.read_text())
    del found["data"]["ends_sha256"]
    summary.write_text(json.dumps(found))
    answer = cli("resume", "run", "loop.max_steps=6")
    assert answer.code == 2
    assert "not what the run began with (train_content_sha256, val_content_sha256); expected the same" in answer.err
    summary.write_text(json.dumps(found | {"data": {}}))  # as runs of older versions were recorded
    assert cli("resume", "run", "loop.max_steps=6").code == 0
    assert len(json.loads(summary.read_text())["data"]["train_content_sha256"]) == 64
