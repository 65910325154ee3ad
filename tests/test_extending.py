"""Every example of docs/extending.md runs, in Python and on the command line."""

from __future__ import annotations

import contextlib
import re
import shlex
import sqlite3
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from command import run_dirs
from loopwright import TrainingLoop
from loopwright.cli import main
from loopwright.data import Loader
from ranked import on_ranks

DOC = (Path(__file__).parents[1] / "docs" / "extending.md").read_text(encoding="utf-8")
CALLBACK, SHARED, LOGGER, USE, DATA = re.findall(r"```python\n(.*?)```", DOC, re.DOTALL)
FILES = re.findall(r"```\n(mine\.py.*?)```", DOC, re.DOTALL)[0]
(COMMAND,) = re.findall(r"```bash\n(.*?)```", DOC, re.DOTALL)


def table(file: Path) -> list[tuple[int, str, float]]:
    with contextlib.closing(sqlite3.connect(file)) as database:
        return database.execute("SELECT step, name, value FROM metrics").fetchall()


def test_each_is_about_40_lines() -> None:
    assert len(CALLBACK.splitlines()) <= 42 and len(LOGGER.splitlines()) <= 42


def test_the_example_from_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "extending"}
    with contextlib.redirect_stdout(None):
        exec(compile(CALLBACK + LOGGER + USE, "extending.md", "exec"), names)
    result = names["result"]
    assert result.state == "stopped"  # type: ignore[attr-defined]
    assert result.metrics["val/num_worse"] == 2  # type: ignore[attr-defined]
    logged = table(Path("outputs/extended/metrics.db"))
    assert {name for _, name, _ in logged} >= {"train/loss", "val/loss", "val/num_worse"}


def long_rows(rank: int) -> dict[str, dict[int, float]]:
    """Train with the callback for several processes. The fifth micro-batch has one row."""
    names: dict[str, Any] = {"__name__": "extending"}
    exec(compile(SHARED, "extending.md", "exec"), names)
    logged = tiny.Logged()
    loop = TrainingLoop(num_epochs=1)
    ours = tiny.trainer(loop, callbacks=[names["LongRows"](2.0)], loggers=[logged], log_every_n_steps=2)
    ours.fit(Loader(tiny.rows(17), batch_size=4))
    return logged.metrics


def test_the_callback_for_several_processes_logs_the_same_with_any_number_of_them() -> None:
    alone = long_rows(0)
    assert sum(alone["train/num_long"].values()) == (tiny.rows(17).tensors[0].norm(dim=1) > 2).sum()
    found = on_ranks(2, long_rows)
    for name in ("train/num_long", "train/largest_norm"):
        assert found[0][name] == alone[name] and name not in found[1]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_the_noise_of_the_data_set_does_not_depend_on_how_it_is_read(num_workers: int) -> None:
    names: dict[str, Any] = {"__name__": "extending"}
    exec(compile(DATA, "extending.md", "exec"), names)
    dataset = names["NoisyRows"](torch.zeros(12, 3))
    reference = torch.cat(list(Loader(dataset, batch_size=4)))
    assert len(reference.unique()) == 36
    del names["NoisyRows"].is_random
    assert torch.equal(torch.cat(list(Loader(dataset, batch_size=3, num_workers=num_workers))), reference)


@pytest.mark.slow
def test_the_example_from_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(CALLBACK + LOGGER, encoding="utf-8")
    for name, text in re.findall(r"^(my_conf\S+) +(\S.*\n(?: {20,}\S.*\n)*)", FILES, re.MULTILINE):
        file = Path(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(" " * FILES.index("the two classes") + text), encoding="utf-8")
    program, *words = shlex.split(COMMAND)
    assert program == "loopwright"
    assert main(words) == 0, capsys.readouterr().err
    (run_dir,) = run_dirs(tmp_path)
    assert "stopped by early_stopping at global_step" in capsys.readouterr().out
    assert {name for _, name, _ in table(run_dir / "metrics.db")} >= {"train/loss", "val/loss", "val/num_worse", "lr"}
