"""Every example of docs/data.md runs, in Python and on the command line."""

from __future__ import annotations

import contextlib
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from command import Answer, run_in
from loopwright import Trainer, TrainingLoop
from loopwright.data import Loader, Splits, TensorData
from loopwright.models import MLP
from tiny import sgd

DOC = (Path(__file__).parents[1] / "docs" / "data.md").read_text(encoding="utf-8")
MODULE, USE = re.findall(r"```python\n(.*?)```", DOC, re.DOTALL)
(CONFIG,) = re.findall(r"```yaml\n(.*?)```", DOC, re.DOTALL)
COMMAND, PLAN = re.findall(r"```bash\n(.*?)```", DOC, re.DOTALL)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the files of the page."""
    (tmp_path / "conf" / "data").mkdir(parents=True)
    (tmp_path / "conf" / "data" / "waves.yaml").write_text(CONFIG)
    (tmp_path / "my_data.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_data", raising=False)
    return tmp_path


def test_the_files_are_as_short_as_promised() -> None:
    code = [line for line in MODULE.splitlines() if line.strip() and not line.startswith(("import", "from"))]
    assert len(code) <= 20 and len(CONFIG.splitlines()) <= 10


def test_the_command_trains(project: Path) -> None:
    program, *words = shlex.split(COMMAND)
    answer: Answer = run_in(project, *words, "hydra.run.dir=run", "loggers=none")
    assert program == "loopwright" and (answer.code, answer.err) == (0, "")
    assert float(re.findall(r"val/accuracy ([\d.]+)", answer.out)[-1]) > 0.9


def test_the_plan_of_a_table_is_printed_and_trained(tmp_path: Path) -> None:
    (tmp_path / "my.csv").write_text("area,city,price\n" + "".join(f"{x},{'ab'[x % 2]},{2 * x}\n" for x in range(20)))
    program, verb, *words = shlex.split(PLAN)
    answer = run_in(tmp_path, verb, *words)
    assert (program, verb, answer.code) == ("loopwright", "plan", 0)
    assert "area: number, city: 2 categories; target price: number" in answer.out
    assert "model.in_features=3" in answer.out
    assert run_in(tmp_path, *words, "loop.max_steps=2", "loggers=none").code == 0


def test_the_same_in_python(project: Path) -> None:
    names: dict[str, Any] = {}
    with contextlib.redirect_stdout(None):
        exec(compile(USE, "data.md", "exec"), names)
    assert names["result"].metrics["val/accuracy"] > 0.9
    names["trainer"].close()


class Stream(IterableDataset[dict[str, torch.Tensor]]):
    """Rows without a length."""

    def __iter__(self) -> Any:
        return iter([{"features": torch.ones(16), "label": torch.tensor(index % 2)} for index in range(20)])


ROWS = TensorData({"features": torch.rand(20, 16), "label": torch.arange(20) % 2})


@pytest.mark.parametrize(
    "data",
    [
        Splits(Loader(ROWS, 4, shuffle=True), Loader(ROWS, 4)),
        Splits(DataLoader(ROWS, 4, shuffle=True), DataLoader(ROWS, 4)),
        Splits(DataLoader(Stream(), 4), DataLoader(Stream(), 4)),
        Splits(list(Loader(ROWS, 4)), {"a": Loader(ROWS, 4), "b": Loader(ROWS, 5)}),
    ],
)
def test_each_row_of_the_table_trains(data: Splits) -> None:
    loop = TrainingLoop(max_steps=7, eval_steps=2)
    with Trainer(MLP(16, [4], 2), sgd, loop=loop, device="cpu") as trainer:
        assert "val/loss" in trainer.fit(data.train, data.val).metrics
