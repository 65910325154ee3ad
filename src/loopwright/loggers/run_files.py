"""`RunFiles`: files in the run directory that grow by whole lines, open for as long as a fit lasts."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

from loopwright.errors import refuse


class RunFiles:
    """Appends lines to files of one run directory; the system has them when `append` returns.

    A file is made with its first line. Outside a fit it is closed again after each call.

    Args:
        run_dir: of the trainer.
        needed_for: the file that a trainer without a run directory cannot have.

    Raises:
        SettingError: without a run directory.
    """

    def __init__(self, run_dir: str | Path | None, needed_for: str) -> None:
        if run_dir is None:
            raise refuse("run_dir", None, f"a directory for {needed_for}", "give Trainer(run_dir=…)")
        self._run_dir = Path(run_dir)
        self._files: dict[str, TextIO] = {}
        self._is_kept_open = False

    def keep_open(self) -> None:
        """Keep files open between calls, until `close`."""
        self._is_kept_open = True

    def append(self, name: str, lines: Iterable[str], header: str = "") -> None:
        """Append lines, each with its line end, to the file ``name``; a file that is new begins with ``header``."""
        if name not in self._files:
            self._run_dir.mkdir(parents=True, exist_ok=True)
            file: TextIO = (self._run_dir / name).open("a", encoding="utf-8", newline="")
            self._files[name] = file
            if not file.tell():
                file.write(header)
        self._files[name].writelines(lines)
        self._files[name].flush()
        if not self._is_kept_open:
            self.close()

    def close(self) -> None:
        """Close the files; a later call opens them again."""
        self._is_kept_open = False
        while self._files:
            _, file = self._files.popitem()
            file.close()


def number(value: float) -> float | str:
    """A finite value as it is, else a word that ``float`` reads: ``"NaN"``, ``"Infinity"`` or ``"-Infinity"``."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
