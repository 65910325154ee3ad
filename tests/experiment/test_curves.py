"""Every run with metrics writes a plot, even if the run fails. An error in writing the plot does not fail the run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from command import Answer, run_dirs

Cli = Callable[..., Answer]

MODULE = """
from loopwright import Callback
class Ends(Callback):
    def __init__(self, how): self.how = how
    def on_train_batch_end(self, trainer, model, outputs, batch, batch_idx):
        if trainer.global_step == 3 and self.how == "stops": trainer.stop("enough")
        if trainer.global_step == 3 and self.how == "fails": raise RuntimeError("broken")
        if trainer.global_step == 3 and self.how == "is_interrupted": raise KeyboardInterrupt
"""


def test_a_run_writes_its_curves_and_prints_the_path(small: Cli, tmp_path: Path) -> None:
    answer = small()
    (run_dir,) = run_dirs(tmp_path)
    assert (run_dir / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert f"Curves: {run_dir.relative_to(tmp_path)}/curves.png\n" in answer.out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "state", "code"),
    [("stops", "stopped", 0), ("fails", "failed", 1), ("is_interrupted", "interrupted", 130)],
)
def test_a_run_that_ends_early_writes_its_curves(small: Cli, tmp_path: Path, how: str, state: str, code: int) -> None:
    name = f"module_that_{how}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    end = f"+callbacks.ends={{_target_: {name}.Ends, how: {how}}}"
    assert small("--trust", name, end, "log_every_n_steps=1").code == code
    (run_dir,) = run_dirs(tmp_path)
    assert json.loads((run_dir / "summary.json").read_text())["state"] == state
    assert (run_dir / "curves.png").is_file()


@pytest.mark.slow
def test_the_jobs_of_a_sweep_write_their_curves(small: Cli, tmp_path: Path) -> None:
    small("-m", "seed=0,1")
    assert len(list(tmp_path.glob("outputs/*/*_sweep/*/curves.png"))) == 2


def test_a_run_without_metrics_has_no_curves(small: Cli, tmp_path: Path) -> None:
    answer = small("loggers=none")
    assert answer.code == 0
    assert "Curves" not in answer.out
    assert list(tmp_path.rglob("curves.png")) == []


def test_an_error_in_writing_the_plot_does_not_fail_the_run(small: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine" / "curves.png").mkdir(parents=True)
    answer = small("hydra.run.dir=mine")
    assert answer.code == 0
    assert "curves.png: cannot be drawn: IsADirectoryError" in answer.err
    assert "Curves" not in answer.out
    assert json.loads((tmp_path / "mine" / "summary.json").read_text())["state"] == "completed"
    assert list((tmp_path / "mine").glob(".curves*")) == []


@pytest.mark.slow
def test_the_title_tells_jobs_apart_and_explains_the_marks(
    small: Cli, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts: list[str] = []
    write = Figure.text

    def noted(figure: Figure, x: float, y: float, text: str, **style: Any) -> Any:
        texts.append(text)
        return write(figure, x, y, text, **style)

    monkeypatch.setattr(Figure, "text", noted)
    assert small("-m", "optimizer.lr=0.01,0.02", "hydra.sweep.dir=s").code == 0
    assert any("optimizer.lr=0.01" in text for text in texts) and any("optimizer.lr=0.02" in text for text in texts)
    assert any("ticks: " in text for text in texts) and not any("resumes" in text for text in texts), texts
    texts.clear()
    assert small("hydra.run.dir=r").code == 0 and cli("resume", "r", "loop.max_steps=6").code == 0
    assert any("dashed: resumes" in text for text in texts)
