"""Run directories as runs leave them, written by hand, for tests of the commands that only read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def leave_run(
    outputs: Path,
    digits: str,
    *,
    name: str = "digits",
    day: int = 1,
    config: str | None = "optimizer: {lr: 0.003}\n",
    values: Mapping[str, Sequence[float | str]] | None = None,
    checkpoints: Sequence[int] = (),
    **summary: Any,
) -> Path:
    """Write a run directory, and return its path.

    Args:
        outputs: folder that contains the folders of the experiments.
        digits: six digits at the end of the directory's name.
        name: name of the experiment.
        day: day of November 2026 at which the run began.
        config: text of ``config.yaml``; None: no such file.
        values: values of each metric, one each 10 steps.
        checkpoints: steps of the checkpoints.
        summary: further entries of ``summary.json``.
    """
    run = outputs / name / f"2026-11-{day:02}_09-15-05_{digits}"
    return write_run(run, day=day, config=config, values=values, checkpoints=checkpoints, **summary)


def write_run(
    run: Path,
    *,
    day: int = 1,
    config: str | None = "optimizer: {lr: 0.003}\n",
    values: Mapping[str, Sequence[float | str]] | None = None,
    checkpoints: Sequence[int] = (),
    **summary: Any,
) -> Path:
    """Write a run into the directory ``run``, with the arguments of `leave_run`."""
    run.mkdir(parents=True)
    own = {
        "state": "completed",
        "global_step": 100,
        "objective_name": "val/loss",
        "objective_mode": "min",
        "started": f"2026-11-{day:02}T09:15:05+00:00",
        "seconds": 60.0,
        **summary,
    }
    (run / "summary.json").write_text(json.dumps(own))
    (run / "plan.json").write_text(json.dumps({"settings": {"stop_step": 100}}))
    if config is not None:
        (run / "config.yaml").write_text(config)
    lines = [
        json.dumps({"step": 10 * (place + 1), "name": metric, "value": value})
        for metric, found in (values or {}).items()
        for place, value in enumerate(found)
    ]
    (run / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))
    for step in checkpoints:
        folder = run / "checkpoints" / f"step_{step:08}"
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("{}")
    return run
