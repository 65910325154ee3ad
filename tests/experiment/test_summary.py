"""Entries of ``summary.json`` that say when and how a run was started, and the results of a run resumed in another."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from command import Answer

Cli = Callable[..., Answer]


def summary(directory: Path) -> dict[str, Any]:
    found = json.loads((directory / "summary.json").read_text())
    assert isinstance(found, dict)
    return found


def rewrite(directory: Path, **changes: Any) -> None:
    """Set entries of the summary; None removes the entry, as in a run of an earlier version."""
    found = {name: value for name, value in (summary(directory) | changes).items() if value is not None}
    (directory / "summary.json").write_text(json.dumps(found))


def test_the_beginning_and_the_end_are_recorded(cli: Cli, tmp_path: Path) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    words = ["hydra.run.dir=a b", "model=cnn", "loop.max_steps=2", "callbacks=[default,early_stopping]"]
    assert cli(*words).code == 0
    found = summary(tmp_path / "a b")
    started, ended = (datetime.fromisoformat(found[name]) for name in ("started", "ended"))
    assert started.utcoffset() is not None and before <= started <= ended <= datetime.now(UTC) + timedelta(seconds=1)
    assert found["cwd"] == str(tmp_path)
    assert found["chosen"] == {"experiment": "digits", "model": "cnn", "data": "digits"}
    assert "\n" not in found["command"] and shlex.split(found["command"]) == ["loopwright", *words]


@pytest.mark.slow
def test_an_experiment_chooses_the_options(cli: Cli, tmp_path: Path) -> None:
    assert cli("experiment=vit_digits", "loop.max_steps=1", "hydra.run.dir=run").code == 0
    assert summary(tmp_path / "run")["chosen"] == {"experiment": "vit_digits", "model": "vit", "data": "digits"}
    assert cli("~experiment", "loop.max_steps=1", "name=none", "hydra.run.dir=none").code == 0
    assert summary(tmp_path / "none")["chosen"]["experiment"] is None


def test_a_resume_keeps_the_beginning(recorded: Path, cli: Cli) -> None:
    rewrite(recorded, started="2020-01-01T10:00:00+01:00", ended="2020-01-01T10:00:01+01:00")
    before = summary(recorded)
    assert cli("resume", "run", "loop.max_steps=5").code == 0
    after = summary(recorded)
    for name in ("started", "command", "chosen", "cwd"):
        assert after[name] == before[name], name
    assert after["ended"] > "2026"


def test_a_run_of_an_earlier_version_is_resumed_and_reproduced(recorded: Path, cli: Cli, tmp_path: Path) -> None:
    earlier = dict.fromkeys(("started", "ended", "command", "chosen", "stop"))
    rewrite(recorded, **earlier)
    answer = cli("reproduce", "run", "hydra.run.dir=again")
    assert answer.code == 0 and "and the weights are bitwise equal." in answer.out
    assert summary(tmp_path / "again")["chosen"] == {"experiment": None, "model": None, "data": None}
    assert cli("resume", "run").code == 0
    assert cli("resume", "run", "loop.max_steps=5").code == 0
    found = summary(recorded)
    assert (found["started"], found["command"], found["chosen"]) == (None, None, None)
    assert found["ended"] is not None and found["state"] == "completed"


@pytest.mark.parametrize("chosen", [3, [], {"model": {}, "data": "synthetic", "more": 1}])
def test_reproduce_keeps_the_chosen_options(chosen: object, recorded: Path, cli: Cli, tmp_path: Path) -> None:
    rewrite(recorded, chosen=chosen)
    assert cli("reproduce", "run", "hydra.run.dir=again").code == 0
    data = "synthetic" if isinstance(chosen, dict) else None
    assert summary(tmp_path / "again")["chosen"] == {"experiment": None, "model": None, "data": data}


@pytest.mark.slow
def test_a_finished_run_is_not_validated_again_in_another_directory(
    recorded: Path, small: Cli, cli: Cli, tmp_path: Path
) -> None:
    first = summary(recorded)
    assert "validate" not in small("plan", "ckpt_path=run").out
    for _ in range(2):
        shutil.rmtree(tmp_path / "other", ignore_errors=True)
        answer = small("hydra.run.dir=other", "ckpt_path=run", "loggers=[json_lines,progress]")
        assert answer.code == 0, answer.err
        assert "\nstep " not in answer.out  # the line of a validation
        found = summary(tmp_path / "other")
        for name in ("state", "global_step", "metrics", "best", "objective", "weights_sha256"):
            assert found[name] == first[name], name
