"""`Keys` finds columns, metrics, chosen options and settings, and reads ``config.yaml`` only if it must."""

from __future__ import annotations

from pathlib import Path

import pytest

from left_runs import leave_run
from loopwright.errors import SettingError
from loopwright.experiment.reading.entry import Entry, read_entries
from loopwright.experiment.reading.keys import Keys

CONFIG = (
    "model: {_target_: loopwright.models.MLP, hidden: [4, 4], deep: {width: 3}}\noptimizer: {lr: 0.003}\nempty: {}\n"
)
UNKNOWN = (
    "no run has a value with this name; expected a column, a metric, or the path of a setting such as optimizer.lr."
)


@pytest.fixture
def entries(tmp_path: Path) -> list[Entry]:
    leave_run(
        tmp_path,
        "aaaaaa",
        config=CONFIG,
        metrics={"val/loss": 0.5, "lr": 0.1},
        chosen={"model": "mlp", "experiment": None},
        changes={"device": ["auto", "cpu"]},
    )
    leave_run(tmp_path, "bbbbbb", config=None, objective="NaN")
    return read_entries(tmp_path)


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("id", ["aaaaaa", "bbbbbb"]),
        ("steps", [100, 100]),
        ("global_step", [100, 100]),
        ("lr", [0.1, None]),
        ("model", ["mlp", None]),
        ("optimizer.lr", [0.003, None]),
        ("model.hidden", [[4, 4], None]),
        ("model.deep.width", [3, None]),
        ("device", ["cpu", None]),
    ],
)
def test_values_by_their_keys(key: str, values: list[object], entries: list[Entry]) -> None:
    find = Keys(entries).find(key)
    assert [find(entry) for entry in entries] == values


def test_a_metric_that_is_the_objective_of_one_run_only(entries: list[Entry]) -> None:
    values = [Keys(entries).find("val/loss")(entry) for entry in entries]
    assert values[0] == 0.5 and repr(values[1]) == "nan"


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("optimizer.lrr", f"optimizer.lrr: {UNKNOWN} Did you mean optimizer.lr?"),
        ("stats", f"stats: {UNKNOWN} Did you mean state?"),
        ("model.deep", "model.deep: is a section; expected one of its settings, such as model.deep.width."),
        ("zzz", f"zzz: {UNKNOWN} Columns: id, kind, name, directory, state, "),
        ("limit.x.y", f"limit.x.y: {UNKNOWN} Did you mean limit?"),
        ("frmat", f"frmat: {UNKNOWN} Did you mean format?"),
    ],
)
def test_unknown_keys_are_refused_with_the_nearest(key: str, said: str, entries: list[Entry]) -> None:
    with pytest.raises(SettingError) as caught:
        Keys(entries).find(key)
    assert str(caught.value).startswith(said)


def test_a_configuration_is_read_only_for_the_key_of_a_setting(entries: list[Entry]) -> None:
    """After the files are removed, settings are missing, and all other keys are found."""
    for entry in entries:
        (entry.directory / "config.yaml").unlink(missing_ok=True)
    assert Keys(entries).find("model")(entries[0]) == "mlp" and Keys(entries).find("lr")(entries[0]) == 0.1
    with pytest.raises(SettingError):
        Keys(entries).find("optimizer.lr")


def test_without_runs_every_key_is_accepted() -> None:
    assert callable(Keys([]).find("optimizer.lr"))
