"""The command as tests call it: what it gave back, what it left, and a run of four steps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SMALL = (
    "data=synthetic",
    "data.num_train=24",
    "data.num_val=8",
    "data.batch_size=4",
    "model.hidden=[4]",
    "loop.max_steps=4",
    "loop.eval_frequency=2",
    "checkpoint.every_n_steps=2",
    "loggers=json_lines",
)


@dataclass(frozen=True)
class Answer:
    """What a command gave back."""

    code: int
    out: str
    err: str


def run_dirs(root: Path) -> list[Path]:
    """The run directories under ``outputs``, oldest first."""
    found = [path.parent for path in root.glob("outputs/*/*/summary.json")]
    return sorted(found, key=lambda path: path.stat().st_mtime_ns)
