"""``loopwright predict DIR`` writes predictions in the labels and units of the data."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from command import Answer, run_in, small_run
from loopwright.models import MLP
from photos import write_photos

Cli = Callable[..., Answer]

ROWS = [(x, city, 3 * x + (10 if city == "Rome" else 0)) for x in range(12) for city in ("Rome", "Oslo")]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a run that predicts a price, a run that predicts a city, a run on other data, and tables."""
    root = tmp_path_factory.mktemp("trained")
    with (root / "old.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("size", "city", "price"), *ROWS])
    words = ("data=csv", "data.path=old.csv", "loop.max_steps=400", "loop.eval_frequency=100", "optimizer.lr=0.01")
    price = ("data.target=price", "model=mlp_regressor", "model.in_features=3", "hydra.run.dir=price")
    city = ("data.target=city", "model.in_features=2", "model.num_classes=2", "hydra.run.dir=city")
    for own in (price, city):
        answer = run_in(root, *words, *own, "loggers=none")
        assert answer.code == 0, answer
    assert run_in(root, *small_run("hydra.run.dir=digits")).code == 0
    (root / "new.csv").write_text("city,size,note\nRome,3,a\nOslo,7,b\nRome,9,c\n")
    return root


def table(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as text:
        return list(csv.DictReader(text))


def test_numbers_are_in_the_unit_of_the_target(trained: Path) -> None:
    answer = run_in(trained, "predict", "price", "data.path=new.csv", "output=a.csv")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith("Predicted: 3 samples with price/checkpoints/step_00000")
    assert "(best val/loss " in answer.out and "File: a.csv (columns: row, prediction)" in answer.out
    rows = table(trained / "a.csv")
    assert [row["row"] for row in rows] == ["2", "3", "4"]
    assert [float(row["prediction"]) for row in rows] == pytest.approx([19, 21, 37], abs=1.5)


def test_classes_have_their_labels(trained: Path) -> None:
    (trained / "sizes.csv").write_text("size,price\n3,19\n7,21\n")
    answer = run_in(trained, "predict", "city", "data.path=sizes.csv", "output=b.csv", "data.batch_size=1")
    assert (answer.code, answer.err) == (0, "")
    rows = table(trained / "b.csv")
    assert list(rows[0]) == ["row", "prediction", "probability_Oslo", "probability_Rome"]
    assert [row["prediction"] for row in rows] == ["Rome", "Oslo"]
    assert all(float(row["probability_Oslo"]) + float(row["probability_Rome"]) == pytest.approx(1) for row in rows)


def test_the_data_of_the_training_are_not_needed(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "price", tmp_path / "elsewhere")
    shutil.copy(trained / "new.csv", tmp_path)
    answer = run_in(tmp_path, "predict", "elsewhere", "data.path=new.csv")
    assert (answer.code, answer.err) == (0, "")
    (file,) = (tmp_path / "elsewhere").glob("predictions_*.csv")
    assert len(table(file)) == 3 and not list(file.parent.glob(".predictions*"))
    again = run_in(tmp_path, "predict", "elsewhere", "data.path=new.csv")
    assert again.code == 2 and "exists already; name another file" in again.err


def test_without_a_path_the_validation_rows_are_predicted(trained: Path) -> None:
    assert run_in(trained, "predict", "price", "output=c.csv").code == 0
    assert len(table(trained / "c.csv")) == 4
    assert run_in(trained, "predict", "price", "output=d.csv", "split=train", "ckpt_path=last").code == 0
    assert len(table(trained / "d.csv")) == 20


@pytest.mark.slow
def test_images_are_named_by_their_paths(tmp_path: Path) -> None:
    write_photos(tmp_path / "old", {"cat": 6, "dog": 6})
    write_photos(tmp_path / "new", {"any": 3})
    words = ("data=image_folder", "data.path=old", "data.image_size=8", "model=cnn", "model.in_channels=3")
    more = ("model.num_classes=2", "loop.max_steps=2", "hydra.run.dir=run", "loggers=none")
    assert run_in(tmp_path, *words, *more).code == 0
    answer = run_in(tmp_path, "predict", "run", "data.path=new", "output=p.csv")
    assert (answer.code, answer.err) == (0, "")
    rows = table(tmp_path / "p.csv")
    assert [row["file"] for row in rows] == [f"new/any/{index}.png" for index in range(3)]
    assert all(row["prediction"] in ("cat", "dog") for row in rows)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["price", "data.path=none.csv"], 2, "data.path='none.csv': no such file"),
        (["price", "data.path=city.csv"], 2, "data.path='city.csv': lacks columns size, city"),
        (["price", "outputs=x.csv"], 2, "outputs"),
        (["price", "split=test"], 2, "split='test': the data of this run have no such set. Available: train, val."),
        (["price", "output=old.csv"], 2, "output='old.csv': exists already; name another file."),
        (["price", "output=no/where.csv", "data.path=new.csv"], 2, "output='no/where.csv': cannot be written"),
        (["price", "ckpt_path=none"], 3, "none: no such folder"),
        (["none"], 3, "none: no such folder; expected a run directory."),
        (["price", "data.path=3"], 2, "data.path=3: expected the path of a table"),
        (
            ["digits", "data.path=new.csv"],
            2,
            "data.path: the data of digits, synthetic, have no such setting; expected a",
        ),
    ],
)
def test_wrong_words_are_refused_and_leave_nothing(trained: Path, words: list[str], code: int, said: str) -> None:
    (trained / "city.csv").write_text("a,b\n1,2\n")
    before = sorted(trained.rglob("*"))
    answer = run_in(trained, "predict", *words)
    assert answer.code == code and said in answer.err and answer.err.count("\n") == 1, answer
    assert sorted(trained.rglob("*")) == before


def test_a_run_of_another_data_set_predicts_its_validation_data(tmp_path: Path) -> None:
    assert run_in(tmp_path, *small_run("hydra.run.dir=run")).code == 0
    answer = run_in(tmp_path, "predict", "run", "output=p.csv")
    assert (answer.code, answer.err) == (0, "")
    rows = table(tmp_path / "p.csv")
    assert len(rows) == 8 and {"row", "prediction", "probability_0"} <= rows[0].keys()


def test_a_model_without_rows_is_told_to_write_predict(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def predict(self: Any, batch: Any) -> Any:
        return {"prediction": 1}

    monkeypatch.setattr(MLP, "predict", predict)
    answer = run_in(trained, "predict", "city", "output=e.csv")
    assert answer.code == 1 and "expected a tensor, or a mapping of tensors" in answer.err


@pytest.mark.parametrize(
    ("words", "named"),
    [(["ckpt_path=best"], "best val/loss"), (["ckpt_path=last"], "newest checkpoint"), ([], "newest checkpoint")],
)
def test_validate_says_which_checkpoint_it_takes(trained: Path, words: list[str], named: str) -> None:
    answer = run_in(trained, "validate", "price", *words)
    assert answer.code == 0 and named in answer.out.splitlines()[0]


def test_a_checkpoint_of_the_run_is_typed_as_a_step_or_a_name(trained: Path) -> None:
    for typed in ("ckpt_path=200", "ckpt_path=step_00000200", "ckpt_path=price/checkpoints/step_00000200"):
        answer = run_in(trained, "validate", "price", typed)
        assert answer.code == 0 and "price/checkpoints/step_00000200 (as given)" in answer.out.splitlines()[0], answer
    assert run_in(trained, "predict", "price", "ckpt_path=200", "output=step.csv").code == 0
    answer = run_in(trained, "validate", "price", "ckpt_path=7")
    assert answer.code == 3 and answer.err.startswith("price/checkpoints/step_00000007: no such folder")
    answer = run_in(trained, "validate", "price", "ckpt_path=[1]")
    assert answer.code == 2 and answer.err == "ckpt_path=[1]: expected a path, a step, best or last.\n"


@pytest.mark.parametrize("kind", ["link", "folder", "file"])
@pytest.mark.parametrize("word", ["best", "last"])
def test_best_and_last_are_checkpoints_even_if_an_entry_has_this_name(kind: str, word: str, trained: Path) -> None:
    entry = trained / "price" / word
    if kind == "link":
        entry.symlink_to("checkpoints/step_00000100")
    elif kind == "folder":
        entry.mkdir()
    else:
        entry.write_text("x")
    try:
        for words in (("validate", "price", f"ckpt_path={word}"), ("validate", f"price/{word}")):
            answer = run_in(trained, *words)
            assert answer.code == 0 and "step_00000100" not in answer.out, answer
        assert run_in(trained, "export", "price", f"ckpt_path={word}", "output=x.safetensors").code == 0
        (trained / "x.safetensors").unlink()
    finally:
        entry.rmdir() if kind == "folder" else entry.unlink()


def test_a_run_in_a_directory_named_best_is_a_run(trained: Path) -> None:
    shutil.copytree(trained / "price", trained / "runs" / "best")
    answer = run_in(trained, "validate", "runs/best")
    assert answer.code == 0 and "Validated: runs/best/checkpoints/" in answer.out
    shutil.rmtree(trained / "runs")


def test_the_best_of_a_directory_with_an_equals_sign_is_found(trained: Path) -> None:
    shutil.copytree(trained / "price", trained / "a=b")
    assert run_in(trained, "validate", "a=b/best").code == 0
    shutil.rmtree(trained / "a=b")


def test_export_takes_the_best_and_copies_the_configuration(trained: Path) -> None:
    answer = run_in(trained, "export", "price", "output=w.safetensors")
    assert answer.code == 0 and "(best val/loss" in answer.out.splitlines()[0]
    assert "Configuration: w.yaml" in answer.out
    assert (trained / "w.yaml").read_text() == (trained / "price" / "config.yaml").read_text()
    assert run_in(trained, "export", "price/last", "output=v.safetensors").code == 0


def test_init_from_the_best_records_which_it_was(trained: Path) -> None:
    words = ["data=csv", "data.path=old.csv", "data.target=price", "model=mlp_regressor", "model.in_features=3"]
    answer = run_in(trained, *words, "init_from=price/best", "loop.max_steps=1", "hydra.run.dir=next", "loggers=none")
    assert answer.code == 0, answer
    assert "init_from: price/checkpoints/step_0" in (trained / "next" / "config.yaml").read_text()


DATA = """
from loopwright.data import Loader, Splits, TensorData, digits

def with_test(batch_size=32, num_workers=0, parts=None):
    data = digits(batch_size)
    test = {name: data.val for name in parts} if parts else data.val
    return Splits(data.train, data.val, test=test)
"""


@pytest.fixture
def with_test(tmp_path: Path) -> Path:
    (tmp_path / "conf" / "data").mkdir(parents=True)
    target = "_target_: data_with_test.with_test\nbatch_size: 32\nnum_workers: 0\nparts: null\n"
    (tmp_path / "conf" / "data" / "mine.yaml").write_text(target)
    (tmp_path / "data_with_test.py").write_text(DATA)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parts", "names"), [("null", ["val/test/loss"]), ("[a,b]", ["val/test/a/loss", "val/test/b/loss"])]
)
def test_a_test_set_is_validated_and_predicted(with_test: Path, parts: str, names: list[str]) -> None:
    trust = ["--config-dir=conf", "--trust=data_with_test"]
    words = [*trust, "data=mine", f"data.parts={parts}", "loop.max_steps=2", "loggers=none", "hydra.run.dir=run"]
    assert run_in(with_test, *words).code == 0
    answer = run_in(with_test, "validate", "run", *trust[1:], "split=test")
    assert answer.code == 0 and [name for name in names if f"\n{name} " in answer.out] == names, answer
    plain = run_in(with_test, "validate", "run", *trust[1:])
    assert plain.out.splitlines()[1].split()[1] == answer.out.splitlines()[1].split()[1], (
        "the test set is the validation set"
    )
    split = "test" if parts == "null" else "test/a"
    assert run_in(with_test, "predict", "run", *trust[1:], f"split={split}", "output=p.csv").code == 0
    assert len(table(with_test / "p.csv")) == 360
    if parts != "null":
        answer = run_in(with_test, "predict", "run", *trust[1:], "split=test", "output=q.csv")
        assert answer.err == "split: expected one of the 2 sets of test; use split=test/a or split=test/b.\n"


def test_a_set_that_is_not_there_is_refused(trained: Path) -> None:
    answer = run_in(trained, "validate", "price", "split=test")
    assert answer.code == 2 and answer.err == (
        "split='test': the data of this run have no such set. Available: train, val.\n"
    )
