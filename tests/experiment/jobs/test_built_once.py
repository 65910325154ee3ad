"""Data and loop of a job are built once, and no object of a check stays in memory."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from command import SMALL, Answer
from loopwright.data import Splits
from loopwright.device import Device
from loopwright.experiment.jobs import job_checker
from loopwright.loop import TrainingLoop

Cli = Callable[..., Answer]


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Count the objects of each class that are built."""
    counts = {"Splits": 0, "TrainingLoop": 0, "Device": 0}
    for kind in (Splits, TrainingLoop, Device):

        def counted(self: Any, *args: Any, _kind: type = kind, _init: Any = kind.__init__, **kwargs: Any) -> None:
            counts[_kind.__name__] += 1
            _init(self, *args, **kwargs)

        monkeypatch.setattr(kind, "__init__", counted)
    return counts


def test_a_run_builds_its_data_and_its_loop_once(cli: Cli, built: dict[str, int]) -> None:
    assert cli(*SMALL, "hydra.run.dir=run").code == 0
    assert built == {"Splits": 1, "TrainingLoop": 1, "Device": 1}


@pytest.mark.slow
@pytest.mark.parametrize("words", [("plan", *SMALL), ("validate", "run"), ("resume", "run"), ("reproduce", "run")])
def test_a_verb_builds_its_data_and_its_loop_once(words: tuple[str, ...], cli: Cli, built: dict[str, int]) -> None:
    assert cli(*SMALL, "hydra.run.dir=run").code == 0
    built.update(dict.fromkeys(built, 0))
    assert cli(*words).code == 0
    assert built == {"Splits": 1, "TrainingLoop": 1, "Device": 1}


@pytest.mark.slow
def test_a_sweep_builds_equal_data_once_for_the_checks_and_once_for_each_job(cli: Cli, built: dict[str, int]) -> None:
    assert cli("-m", *SMALL, "loop.grad_accum_steps=1,2").code == 0
    # Each job is read again from its directory, as `sweep resume` does it: one more loop for each, and one more device.
    assert built == {"Splits": 3, "TrainingLoop": 4, "Device": 3}


@pytest.mark.slow
def test_a_sweep_holds_one_data_set_at_a_time_and_none_after_the_checks(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: list[int] = []
    seen: list[weakref.ref[Any]] = []
    build_data = job_checker.build.build_data

    def watched(*args: Any) -> Splits:
        alive.append(sum(each() is not None for each in seen))
        data = build_data(*args)
        data.train.itself = data.train  # a reference cycle, which only the garbage collector ends
        seen.append(weakref.ref(data.train))
        return data

    monkeypatch.setattr(job_checker.build, "build_data", watched)
    words = [word for word in SMALL if not word.startswith("data.num_val")]
    assert cli("-m", *words, "data.num_val=8,12").code == 0
    assert alive == [0, 0, 0, 0], "two checks, two jobs"


def test_data_that_cannot_be_built_leave_no_run_directory(cli: Cli, tmp_path: Path) -> None:
    answer = cli(*SMALL, "data.num_train=0", "hydra.run.dir=run")
    assert answer.code == 2, answer
    assert not (tmp_path / "run").exists()
