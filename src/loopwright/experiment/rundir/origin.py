"""Functions that find the checkpoints that a run starts from or validates, and compute their SHA-256 digests."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from loopwright.checkpoint import expand, resolve
from loopwright.checkpoint.files import MANIFEST, MAX_MANIFEST_BYTES
from loopwright.experiment.jobs.job_settings import JobSettings
from loopwright.regular_files import read_regular


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
    """Return the SHA-256 of the manifest of each checkpoint, by path. The value is None for an unreadable manifest.

    A manifest contains the digests of all other files of the checkpoint. If any of these files is replaced by a file
    with different content, the manifest has another SHA-256.
    """
    found: dict[str, str | None] = {}
    for folder in checkpoints:
        try:
            found[str(folder)] = hashlib.sha256(read_regular(folder / MANIFEST, MAX_MANIFEST_BYTES)).hexdigest()
        except OSError:
            found[str(folder)] = None
    return found
