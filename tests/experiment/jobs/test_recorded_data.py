"""Relative paths in a recorded configuration: which strings are paths, and where they lead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from loopwright.experiment.jobs.recorded_data import located, started_in, types_data


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with files and a run, whose name has characters of a pattern."""
    place = tmp_path / "[a]"
    (place / "sets").mkdir(parents=True)
    for name in ("my.csv", "price", "loss", "sets/b.npy", "train"):
        (place / name).write_text("")
    (place / "run" / "checkpoints" / "step_1").mkdir(parents=True)
    return place


def own(**values: Any) -> dict[str, Any]:
    return {"_target_": "loopwright.data.csv", **values}


def users(**values: Any) -> dict[str, Any]:
    return {"_target_": "mine.Data", **values}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (own(path="my.csv"), own(path="PLACE/my.csv")),
        (own(path="sets", val_path="../[a]/sets"), own(path="PLACE/sets", val_path="PLACE/../[a]/sets")),
        (own(path={"a": "sets/b.npy", "b": "none.npy"}), own(path={"a": "PLACE/sets/b.npy", "b": "none.npy"})),
        (own(path="my.csv", target="price"), own(path="PLACE/my.csv", target="price")),
        (own(path="loopwright:wine.csv"), own(path="loopwright:wine.csv")),
        (own(path="/my.csv"), own(path="/my.csv")),
        (own(path="~/my.csv", val_path=""), own(path="~/my.csv", val_path="")),
        (own(path="my.csv\0"), own(path="my.csv\0")),
        (own(path=3, val_path=None), own(path=3, val_path=None)),
        (users(source="sets/b.npy", split="train"), users(source="PLACE/sets/b.npy", split="train")),
        (users(root="sets", parts=[{"file": "price"}]), users(root="PLACE/sets", parts=[{"file": "PLACE/price"}])),
        (users(inner=own(target="my.csv"), kind="sets/none"), users(inner=own(target="my.csv"), kind="sets/none")),
        (users(_target_="my.csv"), users(_target_="my.csv")),
    ],
)  # fmt: skip
def test_a_string_is_a_path_by_its_name_or_by_the_file_that_it_names(
    data: dict[str, Any], expected: dict[str, Any], place: Path
) -> None:
    config = {"data": data, "name": "my.csv", "objective": "loss"}
    shown = str(located(config, place)).replace(str(place), "PLACE")
    assert shown == str({"data": expected, "name": "my.csv", "objective": "loss"})
    assert located(config, None) == located(config, Path.cwd()) == config


def test_checkpoints_and_patterns_of_checkpoints_are_paths(place: Path) -> None:
    config = {"init_from": "run", "ckpt_paths": ["run/checkpoints/*", "run/none/*"], "ckpt_path": None}
    (found, left) = located(config, place)["ckpt_paths"]
    assert found.endswith("/[[]a]/run/checkpoints/*") and left == "run/none/*"
    assert located(config, place)["init_from"] == str(place / "run")


def test_only_an_absolute_path_is_a_recorded_directory() -> None:
    assert started_in({"cwd": "/a b"}) == Path("/a b")
    for cwd in (None, 3, "", "a", "./a", "/a\n", "/a\0", ["/a"]):
        assert started_in({"cwd": cwd}) is None
    assert started_in({}) is None


def test_settings_that_do_not_choose_samples_choose_no_other_data() -> None:
    assert not types_data(["data.num_workers=2", "data.batch_size=3", "loop.eval_steps=1", "+seed=3"])
    for word in ("data=csv", "data.path=a", "+data.path=a", "++data.x=1", "~data.x"):
        assert types_data(["seed=1", word])
