"""Links, pipes and folders that other programs leave in a run directory stop no command and are never followed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from command import Answer
from loopwright.errors import SaveError
from loopwright.experiment.gate.trust import NO_TRUST
from loopwright.experiment.launch.supervisor import newest_step
from loopwright.experiment.runs.ending import RunRequest, next_commands
from loopwright.loggers import CSVLogger, JSONLinesLogger, TensorBoardLogger

Cli = Callable[..., Answer]
NOT_REGULAR = "not a regular file; folders, links, pipes and devices are not opened"
VERBS: Sequence[Sequence[str]] = (
    ("validate", "run"),
    ("reproduce", "run"),
    ("resume", "run", "loop.max_steps=6"),
    ("export", "run"),
)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder beside the run directory, which no command may change."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "mine.txt").write_text("mine\n" * 400)
    return tmp_path / "outside"


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def leave_entries(run: Path, outside: Path) -> None:
    """Leave what trackers, editors and file systems leave."""
    (run / "wandb" / "run-1").mkdir(parents=True)
    (run / "wandb" / "latest-run").symlink_to("run-1")
    (run / "wandb" / "debug.log").symlink_to("/nowhere/debug.log")
    (run / "mlruns").symlink_to(outside)
    (run / "loop").symlink_to(".")
    (run / ".#notes").symlink_to("user@host.1234")
    (run / ".summary.json-9").mkdir()
    (run / ".plan.json-9").symlink_to(outside / "mine.txt")
    (run / "checkpoints" / "best").symlink_to("step_00000004")
    (run / "checkpoints" / "step_00000009").symlink_to("step_00000004")
    (run / "checkpoints" / "step_00000008").write_text("")
    (run / "checkpoints" / "step_latest").symlink_to("step_00000004")
    os.mkfifo(run / "pipe")


@pytest.mark.slow
@pytest.mark.parametrize("words", VERBS, ids=lambda words: words[0])
def test_other_entries_stop_no_command(words: Sequence[str], recorded: Path, cli: Cli, outside: Path) -> None:
    leave_entries(recorded, outside)
    before = contents(outside)
    answer = cli(*words)
    assert answer.code == 0, answer.err
    assert contents(outside) == before


APPENDED = ("metrics.jsonl", "timing.jsonl", "run.log")


@pytest.mark.parametrize("name", APPENDED)
def test_a_link_in_place_of_a_file_that_is_appended_to_is_refused(
    name: str, recorded: Path, cli: Cli, outside: Path
) -> None:
    (recorded / name).unlink(missing_ok=True)
    (recorded / name).symlink_to(outside / "mine.txt")
    before = contents(outside)
    answer = cli("resume", "run", "loop.max_steps=6")
    said = [line for line in answer.err.splitlines() if line.startswith(f"run/{name}: ")]
    assert answer.code == 1 and len(said) == 1 and NOT_REGULAR in said[0]
    assert contents(outside) == before


@pytest.mark.parametrize("name", ["plan.txt", "plan.json", "curves.png", ".summary.json-PID", ".curves.png-PID"])
def test_a_link_in_place_of_a_file_that_is_replaced_is_not_followed(
    name: str, recorded: Path, cli: Cli, outside: Path
) -> None:
    place = recorded / name.replace("PID", str(os.getpid()))
    place.unlink(missing_ok=True)
    place.symlink_to(outside / "mine.txt")
    before = contents(outside)
    assert cli("resume", "run", "loop.max_steps=6").code == 0
    assert contents(outside) == before
    assert not place.is_symlink()


@pytest.mark.parametrize(
    ("verb", "name"),
    [
        *(("reproduce", name) for name in ("git.diff", "metrics.jsonl", "environment.json", "summary.json")),
        *(("resume", name) for name in ("command.txt", "environment.json", "summary.json")),
    ],
)
def test_a_link_in_place_of_a_record_is_not_read(verb: str, name: str, recorded: Path, cli: Cli, outside: Path) -> None:
    shutil.move(recorded / name, outside / "kept") if (recorded / name).exists() else (outside / "kept").write_text("x")
    (recorded / name).symlink_to(outside / "kept")
    before = contents(outside)
    answer = cli(verb, "run", "loop.max_steps=6")
    said = f"run/{name}: cannot be read: {NOT_REGULAR}; expected the file that a run recorded, or no file."
    hint = " (traceback in run/run.log)" if name == "command.txt" else ""  # read after the log is opened
    assert (answer.code, answer.out, answer.err) == (3, "", f"{said}{hint}\n")
    assert contents(outside) == before


def test_an_export_does_not_write_through_a_link(recorded: Path, cli: Cli, outside: Path) -> None:
    (recorded / "step_00000004.safetensors").symlink_to(outside / "new.safetensors")
    answer = cli("export", "run")
    assert (answer.code, answer.err) == (
        2,
        "output='run/step_00000004.safetensors': exists already; name another file.\n",
    )
    assert not (outside / "new.safetensors").exists()


def test_a_sweep_refuses_a_link_in_place_of_its_index(small: Cli, tmp_path: Path, outside: Path) -> None:
    (tmp_path / "swept").mkdir()
    (tmp_path / "swept" / "sweep.json").symlink_to(outside / "mine.txt")
    before = contents(outside)
    answer = small("-m", "seed=1", "loop.max_steps=1", "hydra.sweep.dir=swept")
    assert (answer.code, answer.err.count("\n")) == (2, 1) and "swept/sweep.json: cannot be read" in answer.err
    assert contents(outside) == before


@pytest.mark.slow
@pytest.mark.parametrize("logger", [JSONLinesLogger, CSVLogger])
def test_a_logger_refuses_a_link_when_it_first_writes(
    logger: Callable[[], Any], small: Cli, tmp_path: Path, outside: Path
) -> None:
    (tmp_path / "run").mkdir()
    for name in ("metrics.jsonl", "metrics.csv"):
        (tmp_path / "run" / name).symlink_to(outside / "mine.txt")
    before = contents(outside)
    answer = small("hydra.run.dir=run", f"loggers={'json_lines' if logger is JSONLinesLogger else 'csv'}")
    assert answer.code == 1
    assert NOT_REGULAR in answer.err
    assert contents(outside) == before


def test_event_files_are_neither_read_nor_removed_through_links(tmp_path: Path, outside: Path) -> None:
    pytest.importorskip("tensorboard")
    logger = TensorBoardLogger()
    logger._run_dir, logger._is_own_run = tmp_path / "run", True
    (tmp_path / "run" / "tensorboard").mkdir(parents=True)
    (tmp_path / "run" / "tensorboard" / "events.out.tfevents.1").symlink_to(outside / "mine.txt")
    before = contents(outside)
    assert logger.state_dict() == {"sizes": {}}
    logger.load_state_dict({"sizes": {"events.out.tfevents.1": 3}})
    assert contents(outside) == before
    shutil.rmtree(tmp_path / "run" / "tensorboard")
    (tmp_path / "run" / "tensorboard").symlink_to(outside)
    with pytest.raises(SaveError, match="tensorboard: a link, and not written to"):
        logger.log_metrics({"a": 1.0}, 1)
    assert contents(outside) == before


def test_the_supervisor_counts_only_folders(tmp_path: Path, recorded: Path) -> None:
    leave_entries(recorded, tmp_path)
    assert newest_step(recorded) == 4


def test_foreign_entries_are_not_taken_for_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "step_latest").symlink_to("nowhere")
    request = RunRequest(job=Any, directory=tmp_path / "run", words=[], trust=NO_TRUST)  # type: ignore[arg-type]
    assert next_commands(request, "interrupted") == (tmp_path / "run", {})
