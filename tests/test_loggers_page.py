"""The statements of docs/loggers.md that other tests do not cover: its tables and its logger for trackio."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import tiny
from loopwright import Checkpointing, Logger, TrainingLoop
from loopwright.shipped import conf_dir

PAGE = (Path(__file__).parents[1] / "docs" / "loggers.md").read_text(encoding="utf-8")
(TRACKIO,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


class Trackio(ModuleType):
    """The functions of trackio that the example calls. They record their arguments."""

    def __init__(self) -> None:
        super().__init__("trackio")
        self.calls: list[tuple[str, Any]] = []

    def init(self, **arguments: object) -> None:
        self.calls.append(("init", arguments))

    def log(self, metrics: dict[str, float], step: int) -> None:
        self.calls += [("log", (name, step)) for name in metrics]

    def finish(self) -> None:
        self.calls.append(("finish", None))


def test_the_tables_name_all_options_and_settings() -> None:
    options = {file.stem for file in (conf_dir() / "loggers").glob("*.yaml")}
    assert {line.split("`")[1] for line in PAGE.splitlines() if line.startswith("| `")} >= options
    for name in ("wandb", "mlflow"):
        text = (conf_dir() / "loggers" / f"{name}.yaml").read_text()
        settings = re.findall(r"^  (\w+): (\w+)", text, re.MULTILINE)[1:]
        table = re.findall(rf"^\| `loggers\.{name}\.(\w+)` \| `?(\w+)`? \|", PAGE, re.MULTILINE)
        assert sorted(table) == sorted(settings)


def test_the_example_sends_each_value_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trackio, names = Trackio(), dict[str, Any]()
    monkeypatch.setitem(sys.modules, "trackio", trackio)
    exec(compile(TRACKIO, "loggers.md", "exec"), names)
    logger_class: type[Logger] = names["TrackioLogger"]

    def fit(num_steps: int, ckpt_path: Path | None = None) -> None:
        settings: dict[str, Any] = {"checkpoint": Checkpointing(every_n_steps=2), "log_every_n_steps": 1}
        loop = TrainingLoop(max_steps=num_steps)
        with tiny.trainer(loop, loggers=[logger_class()], run_dir=tmp_path, **settings) as trainer:
            trainer.fit(tiny.batches(), ckpt_path=ckpt_path)

    fit(4)
    fit(6, tmp_path / "checkpoints" / "step_00000002")
    assert [step for kind, (name, step) in _logged(trackio) if name == "train/loss"] == [1, 2, 3, 4, 5, 6]
    assert trackio.calls[-1] == ("finish", None)


def _logged(trackio: Trackio) -> list[tuple[str, Any]]:
    return [call for call in trackio.calls if call[0] == "log"]
