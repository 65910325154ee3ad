"""Commands on a recorded run encode other data as the run recorded it, or refuse them."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from command import Answer, run_in, small_run
from photos import write_photos

Cli = Callable[..., Answer]

CENTRE = {"x": 0, "y": 5, "z": 10}  # of the feature of each class
RUN = ("data=csv", "data.path=train.csv", "data.target=kind", "model.in_features=3", "model.num_classes=3")
AGAIN = ("loop=validation", "data=csv", *RUN[2:], "loggers=none")


def write_table(file: Path, kinds: str, num_rows: int, seed: int = 0) -> None:
    """Write rows of clusters: one number close to the centre of the class, and the column ``town``."""
    draw = random.Random(seed)
    rows = [(kinds[row % len(kinds)], "AB"[row // len(kinds) % 2]) for row in range(num_rows)]
    lines = [f"{CENTRE[kind] + draw.gauss(0, 0.3):.4f},{town},{kind}\n" for kind, town in rows]
    file.write_text("size,town,kind\n" + "".join(lines))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a run on the classes x, y and z, and a table ``test.csv`` with only y and z."""
    root = tmp_path_factory.mktemp("encoded")
    write_table(root / "train.csv", "xyz", 60)
    write_table(root / "test.csv", "yz", 30, seed=1)
    answer = run_in(root, *RUN, "loop.max_steps=150", "optimizer.lr=0.01", "loggers=none", "hydra.run.dir=run")
    assert answer.code == 0, answer
    return root


def metrics(answer: Answer) -> dict[str, float]:
    assert (answer.code, answer.err) == (0, ""), answer
    pairs = [line.split() for line in answer.out.splitlines() if line.startswith("val/")]
    return {name: float(value) for name, value in pairs}


@pytest.mark.parametrize("setting", ["data.path", "data.val_path"])
def test_a_table_with_fewer_classes_keeps_the_labels_and_the_means(root: Path, setting: str) -> None:
    found = metrics(run_in(root, "validate", "run", f"{setting}=test.csv"))
    assert found["val/accuracy"] == 1 and found["val/loss"] < 0.2  # the held-out rows of test.csv alone: 0.5
    assert run_in(root, "predict", "run", f"{setting}=test.csv", "output=p.csv").code == 0
    predicted = [line.split(",")[1] for line in (root / "p.csv").read_text().splitlines()[1:]]
    (root / "p.csv").unlink()
    assert predicted == [line.rpartition(",")[2] for line in (root / "test.csv").read_text().splitlines()[1:]]


def test_all_rows_are_read_and_the_recorded_data_are_not_needed(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "run", tmp_path / "copy")
    (tmp_path / "rows.csv").write_text("kind,size,town,note\nz,0,A,wrong\n" + "y,5,A,right\n" * 9)
    assert metrics(run_in(tmp_path, "validate", "copy", "data.path=rows.csv"))["val/accuracy"] == 0.9


@pytest.mark.parametrize(
    ("row", "words", "said"),
    [
        ("w,5,A", (), "data.path='new.csv', row 2, column kind='w': expected one of the classes in the training"),
        ("y,5,C", (), "data.path='new.csv', row 2, column town='C': expected one of the categories that the run was"),
        ("y,,A", (), "data.path='new.csv', row 2, column size: is empty"),
        ("y,5,A", ("split=train",), "split='train': chooses from the recorded data; leave out"),
        ("y,5,A", ("data.val_fraction=0.5",), "data.val_fraction: has no effect together with data.path, because"),
    ],
)  # fmt: skip
def test_rows_that_the_run_cannot_encode_are_refused(root: Path, row: str, words: tuple[str, ...], said: str) -> None:
    (root / "new.csv").write_text(f"kind,size,town\n{row}\n")
    answer = run_in(root, "validate", "run", "data.path=new.csv", *words)
    assert answer.code == 2 and answer.err.startswith(said) and answer.err.count("\n") == 1, answer


def test_a_table_without_targets_is_refused_by_validate(root: Path) -> None:
    (root / "new.csv").write_text("size,town\n5,A\n")
    answer = run_in(root, "validate", "run", "data.path=new.csv")
    assert answer.code == 2 and "lacks column kind, which the run was trained with" in answer.err


@pytest.mark.slow
@pytest.mark.parametrize("start", ["ckpt_path=run", "ckpt_paths=[run]", "ckpt_paths=[run/checkpoints/*]"])
def test_a_composed_validation_with_another_encoding_is_refused(root: Path, start: str) -> None:
    answer = run_in(root, *AGAIN, "data.path=test.csv", start)
    assert answer.code == 2 and answer.err.count("\n") == 1
    assert "data of run (target.classes: ['x', 'y', 'z'] recorded, ['y', 'z'] now; columns.size.mean: " in answer.err
    line = "loopwright validate run data.path=test.csv"
    assert answer.err.endswith(f"to validate on all samples of 'test.csv' with the encoding of the run: {line}.\n")
    assert metrics(run_in(root, *line.split()[1:]))["val/accuracy"] == 1
    refused = run_in(root, *AGAIN, "data.path=train.csv", "data.val_path=test.csv", start)
    assert refused.code == 2 and "columns.size.mean" in refused.err, "all rows of train.csv have another mean"
    answer = run_in(root, *AGAIN, "data.path=train.csv", "data.batch_size=7", start, "hydra.run.dir=again")
    assert answer.code == 0, answer
    shutil.rmtree(root / "again")


def test_a_table_with_other_categories_is_refused(root: Path) -> None:
    text = (root / "train.csv").read_text()
    (root / "towns.csv").write_text(text.replace(",A,", ",C,"))
    answer = run_in(root, *AGAIN, "data.path=towns.csv", "ckpt_path=run")
    assert answer.code == 2 and "(columns.town.categories: ['A', 'B'] recorded, ['B', 'C'] now); " in answer.err


@pytest.mark.parametrize("verb", ["validate", "predict"])
def test_typed_settings_that_change_the_encoding_are_refused(root: Path, verb: str) -> None:
    answer = run_in(root, verb, "run", "data.standardizes=false")
    assert answer.code == 2 and answer.err.startswith(
        "data: encoded differently than the data of run (columns.size.mean"
    )
    assert "recorded, 0 now; " in answer.err and answer.err.endswith("; leave out data.standardizes=false.\n")


@pytest.mark.slow
def test_the_encoding_is_that_of_the_run_whose_checkpoint_is_used(root: Path, tmp_path: Path) -> None:
    for name, kinds in (("one", "xyz"), ("two", "yz")):
        write_table(tmp_path / f"{name}.csv", kinds, 60)
        words = (*RUN[2:], "data=csv", f"data.path={name}.csv", "loop.max_steps=2", "loggers=none")
        assert run_in(tmp_path, *words, f"hydra.run.dir={name}").code == 0
    (step,) = (tmp_path / "two" / "checkpoints").iterdir()
    answer = run_in(tmp_path, "validate", "one", f"ckpt_path={step}")
    assert answer.code == 2 and "(target.classes: ['y', 'z'] recorded, ['x', 'y', 'z'] now; " in answer.err


def test_a_run_without_a_recorded_encoding_is_validated(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "older")
    older = tmp_path / "older"
    (older / "run" / "data.json").unlink()
    for words in (("validate", "run"), (*AGAIN, "data.path=train.csv", "ckpt_path=run", "hydra.run.dir=again")):
        assert run_in(older, *words).code == 0
    file = older / "run" / "summary.json"
    summary = json.loads(file.read_text())
    summary["data"]["sha256"] = "0" * 64
    file.write_text(json.dumps(summary))
    answer = run_in(older, "validate", "run")
    assert answer.code == 2 and answer.err.endswith("now); restore the data that the run read.\n")


def test_changed_data_are_used_with_the_recorded_encoding(root: Path, tmp_path: Path) -> None:
    changed = Path(shutil.copytree(root, tmp_path / "changed"))
    summary = (changed / "run" / "summary.json").read_text()
    (changed / "run" / "summary.json").write_text(summary.replace(str(root), str(changed)))
    shutil.copy(root / "test.csv", changed / "train.csv")
    for words in (("validate", "run"), (*AGAIN, "data.path=train.csv", "ckpt_path=run")):
        answer = run_in(changed, *words)
        assert answer.code == 2 and answer.err.endswith(" data.path=train.csv.\n"), answer
    assert metrics(run_in(changed, "validate", "run", "data.path=train.csv"))["val/accuracy"] == 1


@pytest.mark.slow
def test_a_folder_of_images_keeps_the_classes(tmp_path: Path) -> None:
    write_photos(tmp_path / "old", {"cat": 5, "dog": 5})
    write_photos(tmp_path / "new", {"dog": 5})
    own = ("data=image_folder", "data.image_size=8", "model=cnn", "model.in_channels=3", "model.num_classes=2")
    words = (*own, "data.path=old", "loop.max_steps=2", "loggers=none", "hydra.run.dir=run")
    assert run_in(tmp_path, *words).code == 0
    found = metrics(run_in(tmp_path, "validate", "run", "data.path=new"))
    assert found == metrics(run_in(tmp_path, "validate", "run", "data.val_path=new"))
    composed = (*own, "loop=validation", "loggers=none", "ckpt_path=run")
    refused = run_in(tmp_path, *composed, "data.path=new")
    assert refused.code == 2 and "(target.classes: ['cat', 'dog'] recorded, ['dog'] now); " in refused.err
    answer = run_in(tmp_path, *composed, "data.path=old", "data.val_path=new", "hydra.run.dir=again")
    assert answer.code == 0, answer
    recorded = json.loads((tmp_path / "again" / "summary.json").read_text())["metrics"]
    assert recorded["val/loss"] == pytest.approx(found["val/loss"], rel=1e-3)
    (tmp_path / "new" / "cow").mkdir()
    write_photos(tmp_path / "new", {"cow": 1})
    answer = run_in(tmp_path, "validate", "run", "data.path=new")
    assert answer.code == 2 and answer.err.startswith(
        "data.path='new': has a class cow; expected classes of the training"
    )


def test_tensors_of_other_shapes_are_refused(tmp_path: Path) -> None:
    for name, width in (("a", 3), ("b", 4), ("c", 3)):
        np.save(tmp_path / f"{name}.npy", np.ones((8, width), np.float32))
    np.save(tmp_path / "y.npy", np.arange(8) % 2)
    words = ("data=tensor_file", "data.path={features: a.npy, label: y.npy}", "model.in_features=3")
    more = ("model.num_classes=2", "loop.max_steps=1", "loggers=none", "hydra.run.dir=run", "data.batch_size=2")
    assert run_in(tmp_path, *words, *more).code == 0
    same = run_in(tmp_path, "validate", "run", "data.path.features=c.npy")
    assert same.code == 0, same
    other = run_in(tmp_path, "validate", "run", "data.path.features=b.npy")
    assert other.code == 2, other


def test_data_whose_encoding_stays_the_same_may_be_chosen(tmp_path: Path) -> None:
    assert run_in(tmp_path, *small_run("hydra.run.dir=run")).code == 0
    assert run_in(tmp_path, "validate", "run", "data.num_val=9").code == 0
