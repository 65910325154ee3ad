"""The command ``loopwright lineage DIR``, which shows where the weights of a run come from, and what came from them."""

from __future__ import annotations

import sys
from pathlib import Path

from loopwright.errors import refuse
from loopwright.experiment.console.command_line import CommandLine
from loopwright.experiment.console.list_files import FORMATS, formatted
from loopwright.experiment.console.messages import output_width, tell
from loopwright.experiment.console.options import read_options
from loopwright.experiment.reading.lineage_text import FIELDS, lineage_lines, lineage_rows
from loopwright.experiment.rundir.directory import OUTPUTS
from loopwright.experiment.rundir.find_run import find_run
from loopwright.experiment.sweep.find_sweep import refuse_sweep
from loopwright.records import SWEEP_FILE
from loopwright.records.lineage import read_lineage
from loopwright.records.run_record import has_run_id


def lineage(line: CommandLine) -> int:
    """Print the runs from which the weights of a run come, and the runs that start from it. Nothing is written.

    Raises:
        SettingError: for a wrong option.
        CheckpointError: if the directory contains no run.
    """
    options = read_options(line.overrides, {"format": "text"})
    kind = str(options["format"])
    if kind not in FORMATS:
        raise refuse("format", kind, "text, json, csv or md")
    directory = Path(find_run(line.directories[0]))
    refuse_sweep("lineage", str(directory), ())
    tree = read_lineage(directory, [OUTPUTS, *_outputs_of(directory)])
    if kind != "text":
        tell(formatted(kind, FIELDS, lineage_rows(tree)), wraps=False)
        return 0
    encoding = (sys.stdout.encoding or "utf-8").lower()
    lines = lineage_lines(tree, width=output_width(), is_ascii=not encoding.startswith("utf"))
    if len(tree) == 1:
        lines.append(f"No run in {OUTPUTS}/ starts from it, and it starts from no other run.")
    tell("\n".join(lines), wraps=False)
    return 0


def _outputs_of(directory: Path) -> list[Path]:
    """Return the folder ``outputs`` that contains a run of another working directory; empty if there is none."""
    folder = directory.absolute()
    folder = folder.parent if (folder.parent / SWEEP_FILE).exists() else folder
    return [folder.parent.parent] if has_run_id(folder.name) else []
