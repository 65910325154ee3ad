"""`Origin`, a checkpoint from which a run starts, and functions that read and write it in ``summary.json``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loopwright.errors import on_one_line
from loopwright.records.run_record import run_id

CHECKPOINTS = "checkpoints"  # folder of a run directory
_STEP_FOLDER = re.compile(r"step_(\d{8,15})")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MAX_PATH = 4096
_MAX_ID = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """A checkpoint from which a run starts, or which it validates.

    Attributes:
        path: path of the checkpoint folder. A relative path refers to the directory in which the run was started.
        sha256: SHA-256 of the manifest of the checkpoint; None if it is unknown.
        run: id of the run that saved the checkpoint; None if the checkpoint was not in a run directory.
        step: ``global_step`` of the checkpoint; None if it is unknown.
    """

    path: str
    sha256: str | None
    run: str | None
    step: int | None

    @property
    def run_dir(self) -> Path | None:
        """Path of the run directory that contained the checkpoint; None if the path is not in a run directory."""
        folder = Path(self.path)
        return folder.parent.parent if folder.parent.name == CHECKPOINTS else None

    @property
    def text(self) -> str:
        """The run and the step in words, such as ``6b7ccb, step 2,000``."""
        step = "" if self.step is None else f", step {self.step:,}"
        return on_one_line(f"{self.run or self.path}{step}", _MAX_ID)


def read_origins(summary: Mapping[str, Any]) -> list[Origin]:
    """Return the checkpoints from which a run starts, in the order of the summary. Invalid entries are left out.

    A summary of an earlier version contains only the paths and the digests. The run and the step are then read from the
    path.

    Args:
        summary: content of ``summary.json``.
    """
    recorded = summary.get("origins")
    if not isinstance(recorded, Mapping):
        return []
    return [_origin(path, value) for path, value in recorded.items() if 0 < len(path) <= _MAX_PATH and "\0" not in path]


def as_record(origin: Origin) -> dict[str, Any]:
    """Return the entry of an origin in ``summary.json``, where the path is its key."""
    return {"sha256": origin.sha256, "run": origin.run, "step": origin.step}


def digests_of(summary: Mapping[str, Any]) -> dict[str, str | None]:
    """Return the digest of each recorded checkpoint by its path."""
    return {origin.path: origin.sha256 for origin in read_origins(summary)}


def step_in_name(folder: Path) -> int | None:
    """Return the step in the name of a checkpoint folder, such as ``step_00000100``; None for another name."""
    found = _STEP_FOLDER.fullmatch(folder.name)
    return None if found is None else int(found[1])


def run_in_path(folder: Path) -> str | None:
    """Return the id of the run directory in the path of a checkpoint; None if the path is not in a run directory."""
    return run_id(folder.parent.parent) or None if folder.parent.name == CHECKPOINTS else None


def _origin(path: str, value: object) -> Origin:
    fields = value if isinstance(value, Mapping) else {"sha256": value}
    digest, run, step = fields.get("sha256"), fields.get("run"), fields.get("step")
    folder = Path(path)
    return Origin(
        path=path,
        sha256=digest if isinstance(digest, str) and _DIGEST.fullmatch(digest) else None,
        run=on_one_line(run, _MAX_ID) if isinstance(run, str) and run else run_in_path(folder),
        step=step if type(step) is int and 0 <= step < 2**63 else step_in_name(folder),
    )
