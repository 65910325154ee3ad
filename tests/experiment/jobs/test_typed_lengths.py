"""A typed length replaces the lengths in files, and a length in a file of the user replaces those in shipped files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from command import Answer, run_dirs, small_run
from loopwright.experiment.jobs.typed_lengths import LENGTHS, settle_lengths, typed_lengths

Cli = Callable[..., Answer]

FILES = "of the configuration files is not used"


def settled(lengths: dict[str, int], overrides: list[str], own: dict[str, str] | None = None) -> Any:
    config = {"loop": {"_target_": "loopwright.loop.TrainingLoop", **dict.fromkeys(LENGTHS), **lengths}}
    before = json.dumps(config)
    found = settle_lengths(config, overrides, lambda: own or {})
    assert json.dumps(config) == before
    return {name: value for name, value in found.config["loop"].items() if value and name in LENGTHS}, found.notes


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        (["loop.num_epochs=1", "seed=3"], ["num_epochs"]),
        (["+loop.num_steps=5"], ["num_steps"]),
        (["++loop.max_steps=5", "loop.num_epochs=2"], ["max_steps", "num_epochs"]),
        (["loop={max_steps: 5, eval_steps: 2}"], ["max_steps"]),
        (["++loop={num_steps: 5, num_epochs: null}"], ["num_steps", "num_epochs"]),
        (["~loop.max_steps", "loop=training", "loop.eval_steps=3", "my.loop.max_steps=3", "debug=fast"], []),
    ],
)
def test_typed_lengths_are_found_in_overrides(overrides: list[str], names: list[str]) -> None:
    assert typed_lengths(overrides) == names


def test_a_typed_length_replaces_the_lengths_of_files() -> None:
    both = {"max_steps": 2000, "num_epochs": 100}
    note = f"loop.max_steps=2000 {FILES}: loop.num_epochs=100 was typed"
    assert settled(both, ["loop.num_epochs=100"]) == ({"num_epochs": 100}, (note,))
    assert settled(both, ["loop.max_steps=2000", "loop.num_epochs=100"]) == (both, ())
    assert settled(both, []) == (both, ())
    assert settled({"max_steps": 2000}, ["loop.num_epochs=null"]) == ({"max_steps": 2000}, ())
    assert settled({}, ["loop.max_steps=null"]) == ({}, ())
    three = {"num_steps": 7, "max_steps": 9, "num_epochs": 3}
    reason = "loop.max_steps=9 and loop.num_epochs=3 were typed"
    assert settled(three, ["loop={max_steps: 9, num_epochs: 3}"]) == (
        {"max_steps": 9, "num_epochs": 3},
        (f"loop.num_steps=7 {FILES}: {reason}",),
    )


def test_a_length_in_a_file_of_the_user_replaces_the_lengths_of_shipped_files() -> None:
    both = {"max_steps": 2000, "num_epochs": 3}
    own = {"num_epochs": "experiment/mine.yaml"}
    note = "loop.max_steps=2000 of the shipped files is not used: experiment/mine.yaml sets loop.num_epochs=3"
    assert settled(both, [], own) == ({"num_epochs": 3}, (note,))
    assert settled(both, [], dict.fromkeys(both, "experiment/mine.yaml")) == (both, ())
    assert settled({"max_steps": 4}, [], own) == ({"max_steps": 4}, ())  # debug=fast has set num_epochs to null
    assert settled(both, ["loop.max_steps=2000"], own)[0] == {"max_steps": 2000}


@pytest.mark.hydra
@pytest.mark.parametrize(
    ("words", "num_steps"),
    [
        (["loop.num_epochs=50"], 2250),
        (["++loop.num_epochs=50"], 2250),
        (["loop={num_epochs: 50}"], 2250),
        (["debug=fast", "loop.num_epochs=2"], 90),
        (["experiment=csv_example", "loop.num_steps=7"], 7),
        (["loop.num_epochs=50", "loop.max_steps=2000"], 2000),
        (["loop.num_epochs=null"], 2000),
        (["loop=training"], 2000),
    ],
)
def test_the_plan_follows_the_typed_length(words: list[str], num_steps: int, cli: Cli) -> None:
    answer = cli("plan", *words)
    assert answer.code == 0, answer.err
    assert answer.out.startswith(f"Plan: train {num_steps:,} steps, ")
    assert (FILES in answer.out) == (num_steps in (2250, 90, 7))


@pytest.fixture
def own(cli: Cli, tmp_path: Path) -> Cli:
    """Return a function that runs the command with a directory of configuration files."""
    files = {
        "experiment/mine.yaml": "# @package _global_\nloop:\n  num_epochs: 3\n",
        "experiment/long.yaml": "# @package _global_\ndefaults:\n  - gpt_stdlib\nloop:\n  num_steps: 9\n",
        "experiment/both.yaml": "# @package _global_\nloop:\n  num_epochs: 3\n  max_steps: 100\n",
        "experiment/other.yaml": "# @package _global_\nloop:\n  eval_frequency: 5\n",
        "loop/epochs.yaml": "_target_: loopwright.loop.TrainingLoop\nnum_epochs: 2\n",
        "loop/more.yaml": "defaults:\n  - training\nnum_epochs: 2\n",
    }
    for name, text in files.items():
        (tmp_path / "conf" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "conf" / name).write_text(text)
    return lambda *words: cli(*words, "--config-dir=conf")


@pytest.mark.hydra
@pytest.mark.parametrize(
    ("words", "num_steps", "file"),
    [
        (["experiment=mine"], 135, "experiment/mine.yaml"),
        (["experiment=long"], 9, "experiment/long.yaml"),
        (["experiment=both"], 100, None),
        (["experiment=other"], 2000, None),
        (["loop=more"], 90, "loop/more.yaml"),
        (["loop=epochs", "experiment=csv_example"], 10, "loop/epochs.yaml"),
        (["experiment=mine", "debug=fast"], 4, None),
        (["experiment=mine", "loop.max_steps=200"], 200, None),
        (["experiment=mine", "loop.num_epochs=null"], 2000, None),
    ],
)
def test_the_plan_follows_the_files_of_the_user(words: list[str], num_steps: int, file: str | None, own: Cli) -> None:
    answer = own("plan", *words)
    assert answer.code == 0, answer.err
    assert answer.out.startswith(f"Plan: train {num_steps:,} steps, ")
    assert ("of the shipped files is not used" in answer.out) == (file is not None)
    assert file is None or f": {file} sets loop." in answer.out


@pytest.mark.slow
def test_the_result_is_recorded_in_each_job_of_a_sweep(cli: Cli, tmp_path: Path) -> None:
    words = [word for word in small_run() if not word.startswith("loop.max_steps=")]
    answer = cli("-m", "loop.num_epochs=1,2", *words)
    assert answer.code == 0, answer.err
    lengths, steps = [], []
    for directory in sorted(path.parent for path in tmp_path.glob("outputs/*/*/*/summary.json")):
        loop = yaml.safe_load((directory / "config.yaml").read_text())["loop"]
        lengths.append([loop[name] for name in LENGTHS])
        steps.append(json.loads((directory / "summary.json").read_text())["global_step"])
        for name in ("plan.txt", "plan.json"):
            assert f"loop.max_steps=2000 {FILES}: loop.num_epochs=" in (directory / name).read_text()
    assert (lengths, steps) == ([[None, None, 1], [None, None, 2]], [6, 12])


@pytest.mark.slow
def test_a_length_that_is_typed_for_a_recorded_run_replaces_the_recorded_length(small: Cli, cli: Cli) -> None:
    assert small("hydra.run.dir=run").code == 0  # max_steps=4
    answer = cli("resume", "run", "loop.num_epochs=2")
    assert answer.code == 0, answer.err
    assert "Done: trained 8 steps to global_step 12 " in answer.out
    note = "loop.max_steps=4 of the recorded configuration is not used: loop.num_epochs=2 was typed\n"
    assert note in Path("run/plan.txt").read_text()
    loop = yaml.safe_load(Path("run/config.yaml").read_text())["loop"]
    assert [loop[name] for name in LENGTHS] == [None, None, 2]
    assert cli("resume", "run", "loop.num_steps=7").code == 2  # an earlier end
    assert cli("validate", "run").code == 0
    answer = cli("reproduce", "run", "loop.num_steps=3")
    assert "\n  loop.num_epochs: 2 recorded, None now\n" in answer.out
    assert "Done: trained 3 steps " in answer.out


@pytest.mark.slow
def test_a_typed_length_that_equals_the_recorded_one_replaces_the_others(small: Cli, cli: Cli) -> None:
    assert small("hydra.run.dir=run", "loop.num_epochs=1").code == 0  # max_steps=4 ends it
    assert "nothing is left to do" in cli("resume", "run").out
    assert "Done: trained 2 steps to global_step 6 " in cli("resume", "run", "loop.num_epochs=1").out


def test_a_typed_mapping_of_a_validation_is_still_refused(cli: Cli, recorded: Path) -> None:
    answer = cli("loop=validation", "loop.max_steps=3", "ckpt_path=run")
    assert answer.code == 2 and "max_steps" in answer.err
    assert run_dirs(recorded.parent) == []
