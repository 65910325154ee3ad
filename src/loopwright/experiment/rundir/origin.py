"""The checkpoints that a run starts from or validates, with SHA-256 digests by which a replaced one is detected."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from loopwright.checkpoint import expand, resolve
from loopwright.experiment.jobs.job_settings import JobSettings


def origins(settings: JobSettings) -> list[Path]:
    """Return the checkpoints that the settings of a run name.

    Raises:
        CheckpointError: if a checkpoint does not exist, or if a named run has no complete checkpoint.
    """
    if settings.ckpt_paths is not None:
        return expand(settings.ckpt_paths)
    path = settings.ckpt_path or settings.init_from
    return [] if path is None else [resolve(path)]


def origin_digests(checkpoints: Iterable[Path]) -> dict[str, str | None]:
    """Return the SHA-256 of the manifest in each checkpoint folder, or None if it cannot be read.

    The manifest contains the digests of all other files of the checkpoint.
    """
    found: dict[str, str | None] = {}
    for folder in checkpoints:
        try:
            found[str(folder)] = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
        except OSError:
            found[str(folder)] = None
    return found
