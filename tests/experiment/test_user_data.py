"""Data sets as a user configures them: a model trains on each kind, and the shipped example learns."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from command import Answer, run_dirs
from loopwright.records import read_encoding
from photos import write_photos

Cli = Callable[..., Answer]
QUICK = ("loop.max_steps=4", "loop.eval_frequency=2", "checkpoint=none", "loggers=json_lines")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Write a table, photos and tensors into the directory of the command, and return it."""
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
def test_a_model_trains_on_each_kind_of_data(cli: Cli, files: Path, words: list[str]) -> None:
    classes = ["model.num_classes=20"] if "model=mlp_regressor" not in words else []
    answer = cli(*words, *classes, *QUICK)
    assert (answer.code, answer.err) == (0, "")
    (run_dir,) = run_dirs(files)
    assert json.loads((run_dir / "summary.json").read_text())["metrics"]["val/loss"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["data=csv", "data.path=kinds.csv", "data.target=kind", "model.in_features=9", "model.num_classes=2"],
        ["data=csv", "data.path=kinds.csv", "data.target=kind", "model=cnn"],
        ["data=csv", "data.path=houses.csv", "data.target=price"],
        ["data=csv", "data.path=houses.csv", "data.target=price", "model.in_features=9"],
        ["data=image_folder", "data.path=photos", "model=cnn", "model.in_channels=9", "model.image_size=9"],
        ["data=tensor_file", "data.path=rows.safetensors"],
        ["data=stdlib_text"],
    ],
    ids=" ".join,
)
def test_the_line_that_an_error_proposes_makes_the_model_fit(cli: Cli, files: Path, words: list[str]) -> None:
    (files / "kinds.csv").write_text("size,kind\n" + "".join(f"{row},{'abc'[row % 3]}\n" for row in range(20)))
    first = cli("plan", *words)
    proposed = shlex.split(re.split(r", or |;|\.$| \(columns", re.split(r"[Tt]ype ", first.err.strip())[1])[0])
    replaced = {word.partition("=")[0] for word in proposed}
    kept = [word for word in words if word.partition("=")[0] not in replaced]
    second = cli("plan", *kept, *proposed)
    assert (first.code, second.code, second.err) == (2, 0, "")


@pytest.mark.slow
def test_a_table_with_holes_in_another_layout_is_trained_and_predicted(cli: Cli, tmp_path: Path) -> None:
    rows = [f"{'' if row % 7 == 3 else f'{row},5'};{'' if row == 4 else 'café'};{row}" for row in range(20)]
    (tmp_path / "old.csv").write_bytes("\n".join(["size;place;price", *rows]).encode("latin-1"))
    layout = ["data.delimiter=;", "data.decimal=,", "data.encoding=latin-1"]
    words = ["data=csv", "data.path=old.csv", "data.target=price", "model=mlp_regressor", *layout]
    assert cli("plan", *words).err.endswith(" To repair all of this, type data.missing=fill.\n")
    answer = cli(*words, "data.missing=fill", "loop.max_steps=2", "loggers=none", "hydra.run.dir=run")
    assert (answer.code, answer.err) == (0, "")
    columns = "size: number (3 empty cells filled), place: 1 category (1 empty cell filled);"
    assert columns in (tmp_path / "run" / "plan.txt").read_text()
    recorded = (tmp_path / "run" / "data.json").read_bytes()
    (tmp_path / "new.csv").write_bytes("place;size\ncafé;\n;7,5\n".encode("latin-1"))
    assert cli("predict", "run", "data.path=new.csv", "output=found.csv").code == 0
    (tmp_path / "plain.csv").write_text("place,size\ncafé,\n,7.5\n")
    plain = ["data.delimiter=comma", "data.decimal=point", "data.encoding=utf-8"]
    assert cli("predict", "run", "data.path=plain.csv", *plain, "output=same.csv").code == 0
    assert (tmp_path / "found.csv").read_text() == (tmp_path / "same.csv").read_text()
    for verb in (["validate", "run"], ["validate", "run", "data.path=old.csv"], ["resume", "run", "loop.max_steps=3"]):
        assert cli(*verb).code == 0
    assert (tmp_path / "run" / "data.json").read_bytes() == recorded


@pytest.mark.slow
def test_the_encoding_of_the_data_is_recorded_and_equal_runs_record_equal_bytes(cli: Cli, files: Path) -> None:
    words = ["data=csv", "data.path=houses.csv", "data.target=price", "model=mlp_regressor", "model.in_features=1"]
    for name in ("a", "b"):
        assert cli(*words, "loop.max_steps=2", "loggers=none", f"hydra.run.dir={name}").code == 0
    text = (files / "a" / "data.json").read_bytes()
    assert text == (files / "b" / "data.json").read_bytes()
    found = read_encoding(files / "a")
    assert found is not None
    assert [column["name"] for column in found["columns"]] == ["area"]
    assert found["target"]["unit"] == "standard deviations of price (1 = 11.4)"
    (files / "b" / "data.json").unlink()  # as in a run of an older version
    (files / "a" / "data.json").write_text("kept")
    for name in ("a", "b"):
        assert cli("resume", name, "loop.max_steps=3").code == 0
    assert (files / "a" / "data.json").read_text() == "kept"
    assert (files / "b" / "data.json").read_bytes() == text


@pytest.mark.slow
def test_the_plan_notes_a_typed_number_of_classes_above_the_number_in_the_data(cli: Cli, files: Path) -> None:
    words = ["data=synthetic", "data.num_classes=3", "data.num_train=24", "loop.max_steps=1", "loggers=none"]
    note = "model.num_classes=7: the data have 3 classes"
    for number, is_noted in ((7, True), (3, False)):
        answer = cli("plan", *words, f"model.num_classes={number}")
        assert answer.code == 0 and (note in answer.out) == is_noted, answer
    assert cli(*words, "model.num_classes=7", "hydra.run.dir=run").code == 0
    assert note in (files / "run" / "plan.txt").read_text()


def test_a_larger_recorded_number_of_classes_is_kept(cli: Cli, files: Path) -> None:
    words = ["data=image_folder", "data.path=photos", "data.image_size=8", "data.channels=1", "loggers=none"]
    assert cli(*words, "model.num_classes=5", "loop.max_steps=1", "hydra.run.dir=run").code == 0
    assert cli("resume", "run", "loop.max_steps=2").code == 0
    assert cli("validate", "run").code == 0


@pytest.mark.slow
def test_a_plan_for_data_larger_than_memory_computes_no_samples(cli: Cli) -> None:
    answer = cli("plan", "model=gpt", "data=synthetic_tokens", "data.num_train=1000000000", "data.batch_size=1000")
    assert answer.code == 0
    assert "1,000" in answer.out


def test_the_csv_example_learns(cli: Cli, tmp_path: Path) -> None:
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
def test_the_override_in_an_error_about_a_column_works(cli: Cli, tmp_path: Path, name: str) -> None:
    (tmp_path / "odd.csv").write_text(f'"{name}",id,y\n1,x,0\nfew,7,0\n2,z,1\n3,x,1\n4,x,1\n')
    words = ["plan", "data=csv", "data.path=odd.csv", "data.target=y", "model=mlp_regressor"]
    first = cli(*words)
    second = cli(*words, override_in(first.err), "model.in_features=7")
    assert f"{name}='few': expected a number" in first.err
    assert "row 3, column id='7': expected text" in first.err
    assert (second.code, second.err) == (0, "")


def override_in(message: str) -> str:
    """Return the override that repairs all faults that an error names, as a shell reads it."""
    (word,) = shlex.split(message.strip().removesuffix(".").rpartition(", type ")[2])
    return word


@pytest.mark.slow
def test_a_run_is_not_resumed_with_changed_content_unless_it_has_no_hash(cli: Cli, files: Path) -> None:
    words = ["data=tensor_file", "data.path=rows.safetensors", "model=mlp_regressor", "model.in_features=3"]
    assert cli(*words, "loop.max_steps=4", "loggers=json_lines", "hydra.run.dir=run").code == 0
    save_file({"features": torch.randn(20, 3), "target": torch.randn(20)}, files / "rows.safetensors")
    summary = files / "run" / "summary.json"
    found = json.loads(summary.read_text())
    del found["data"]["ends_sha256"]
    summary.write_text(json.dumps(found))
    answer = cli("resume", "run", "loop.max_steps=6")
    assert answer.code == 2
    assert answer.err.startswith("data: not the data that the run read (data.train_content_sha256: '")
    assert "; data.val_content_sha256: '" in answer.err
    summary.write_text(json.dumps(found | {"data": {}}))  # as runs of older versions were recorded
    assert cli("resume", "run", "loop.max_steps=6").code == 0
    assert len(json.loads(summary.read_text())["data"]["train_content_sha256"]) == 64
