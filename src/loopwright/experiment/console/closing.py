"""The text that a run prints at its end."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loopwright.experiment.console.command_line import words_on
from loopwright.experiment.console.tables import show
from loopwright.records import CURVES_FILE

_TRAINING = ("train/", "lr")  # prefixes of metrics that are not measured by a validation


def closing_text(
    headline: str,
    metrics: Mapping[str, float],
    best: Mapping[str, Any] | None,
    directory: Path,
    commands: Mapping[str, str],
) -> str:
    """Return the headline, the final and best metrics, the paths of the results, and commands for the next step."""
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
    """Return the shell command for a verb on a run directory, with ``--trust`` for the packages the run trusted."""
    return shlex.join(["loopwright", *words_on(verb, directory, trusted)])
