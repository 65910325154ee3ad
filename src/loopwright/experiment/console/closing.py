"""`closing_text`, which returns the text that is printed at the end of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loopwright.errors import printable
from loopwright.experiment.console.tables import show
from loopwright.records import CURVES_FILE

_TRAINING = ("train/", "lr")  # prefixes of the names of metrics that are logged in training


def closing_text(
    headline: str | None,
    metrics: Mapping[str, float],
    best: Mapping[str, Any] | None,
    directory: Path,
    commands: Mapping[str, str],
) -> str:
    """Return the headline, the final and best metrics, the paths of the results, and commands for the next steps.

    Args:
        headline: first line of the text; None: the text has no headline.
        metrics: metrics at the end of the run.
        best: name, value and step of the best metric; None if there is no best metric.
        directory: run directory.
        commands: shell commands that the user can run next, by label.
    """
    lines = [] if headline is None else [headline]
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
    return "\n".join(printable(line, keeps_newlines=False) for line in lines)
