"""The device of a run: the command chooses it if none is typed, records the choice, and a resume keeps it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from command import Answer
from loopwright.device import resolve_kind

Cli = Callable[..., Answer]
LONGER = "loop.max_steps=6"

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


def recorded_kind(run_dir: Path) -> str:
    kind = yaml.safe_load((run_dir / "config.yaml").read_text())["device"]["kind"]
    assert isinstance(kind, str)
    return kind


def record_kind(run_dir: Path, kind: str) -> None:
    """Change the recorded kind, as if another machine had trained the run."""
    text = (run_dir / "config.yaml").read_text()
    (run_dir / "config.yaml").write_text(text.replace(f"  kind: {recorded_kind(run_dir)}\n", f"  kind: {kind}\n"))


def test_the_kind_that_auto_chose_is_recorded(small: Cli, tmp_path: Path) -> None:
    assert small("device=auto", "hydra.run.dir=run").code == 0
    assert recorded_kind(tmp_path / "run") == resolve_kind("auto")


def test_auto_is_the_default(cli: Cli) -> None:
    assert "kind: auto" in cli("config").out


@pytest.mark.slow
@without_gpu
def test_a_resume_on_another_kind_is_refused_unless_it_is_typed(small: Cli, cli: Cli, tmp_path: Path) -> None:
    assert small("hydra.run.dir=run").code == 0
    record_kind(tmp_path / "run", "gpu")
    answer = cli("resume", "run", LONGER)
    problem = "device.kind='gpu': expected a device of this machine; no GPU is available: use cpu or auto.\n"
    assert (answer.code, answer.err) == (2, problem)
    assert recorded_kind(tmp_path / "run") == "gpu"
    for kind, length in (("cpu", "loop.max_steps=6"), ("auto", "loop.max_steps=8")):
        record_kind(tmp_path / "run", "gpu")
        answer = cli("resume", "run", length, f"device.kind={kind}")
        assert answer.code == 0, answer.err
        assert recorded_kind(tmp_path / "run") == "cpu"


@pytest.mark.slow
def test_a_compiled_run_is_recorded_timed_and_resumed_as_it_was(small: Cli, cli: Cli, tmp_path: Path) -> None:
    answer = small("device.compile={target:model,backend:aot_eager}", "hydra.run.dir=run", "loop.max_steps=2")
    assert answer.code == 0, answer.err
    lines = [json.loads(line) for line in (tmp_path / "run" / "timing.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["name"] == "train/compile_seconds"] == [1]
    assert cli("resume", "run", "loop.max_steps=4").code == 0
    answer = cli("resume", "run", "loop.max_steps=6", "device.channels_last=true")
    assert answer.code == 2 and "device.channels_last: False recorded, True now" in answer.err
