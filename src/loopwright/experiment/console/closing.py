"""What a run and a sweep print when they are over."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loopwright.experiment.console.command_line import words_on
from loopwright.experiment.console.tables import show
from loopwright.records import CURVES_FILE

_TRAINING = ("train/", "lr")  # what is not measured by a validation


def closing_text(
    headline: str,
    metrics: Mapping[str, float],
    best: Mapping[str, Any] | None,
    directory: Path,
    commands: Mapping[str, str],
) -> str:
    """What was done, best and final metrics, where everything is, and the commands that go on from there."""
    lines = [headline]
    final = [f"{name} {show(value)}" for name, value in metrics.items() if not name.startswith(_TRAINING)]
    final = final or [f"{name} {show(value)}" for name, value in metrics.items()]
    if final:
        lines.append(f"Final: {', '.join(final)}")
    if best is not None:
        lines.append(f"Best: {best['name']} {show(best['value'])} at step {best['step']:,}")
    if (directory / CURVES_FILE).is_file():
        lines.append(f"Curves: {directory / CURVES_FILE}")
    lines.append(f"Run directory: {directory}")
    lines += [f"{label}: {command}" for label, command in commands.items()]
    return "\n".join(lines)


def command_on(verb: str, directory: Path, trusted: Sequence[str]) -> str:
    """The command that does something with a run, trusting the same again."""
    return shlex.join(["loopwright", *words_on(verb, directory, trusted)])
