from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from loopwright.checkpoint import step_folder, write_checkpoint


def small_state(step: int) -> dict[str, Any]:
    """Return a state with every kind of entry. It is different for each step, and much smaller than a model's."""
    weight = torch.arange(6.0).reshape(2, 3) + step
    return {
        "model": {"weight": weight, "tied": weight, "count": torch.tensor(step)},
        "optimizer": {"state": {0: {"exp_avg": weight / 2}}, "param_groups": [{"lr": 0.1, "betas": (0.9, 0.999)}]},
        "random": {"torch": torch.arange(step, step + 16, dtype=torch.uint8), "python": (3, (2**31, step), None)},
        "position": {"global_step": step},
        "buffers": {},
    }


@pytest.fixture
def make_state() -> Callable[[int], dict[str, Any]]:
    """Return a function that makes the state of a step."""
    return small_state


@pytest.fixture
def save(tmp_path: Path) -> Callable[[int], Path]:
    """Return a function that saves the state of a step in the run directory ``tmp_path``."""

    def save_step(step: int) -> Path:
        return write_checkpoint(step_folder(tmp_path, step), small_state(step), step=step)

    return save_step
