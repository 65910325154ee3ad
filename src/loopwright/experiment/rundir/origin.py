"""Functions that find the checkpoints that a run starts from or validates, and compute their SHA-256 digests."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from loopwright.checkpoint import expand, resolve
from loopwright.experiment.jobs.job_settings import JobSettings
from loopwright.records import read_record


def origins(settings: JobSettings) -> list[Path]:
    """Return the paths of the checkpoints that ``ckpt_path``, ``ckpt_paths`` or ``init_from`` name.

    Raises:
        CheckpointError: if a checkpoint does not exist, or if a run directory contains no valid checkpoint.
    """
    if settings.ckpt_paths is not None:
        return expand(settings.ckpt_paths)
    path = settings.ckpt_path or settings.init_from
    return [] if path is None else [resolve(path)]


def origin_digests(checkpoints: Iterable[Path]) -> dict[str, str | None]:
    """Return the SHA-256 of the manifest of each checkpoint, by path. The value is None if there is no manifest.

    The manifest contains the digests of all other files of the checkpoint. A replaced checkpoint therefore has another
    SHA-256.

    Raises:
        CheckpointError: if a manifest cannot be read, or is too large.
    """
    found: dict[str, str | None] = {}
    for folder in checkpoints:
        manifest = read_record(folder / "manifest.json")
        found[str(folder)] = None if manifest is None else hashlib.sha256(manifest).hexdigest()
    return found
