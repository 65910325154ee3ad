"""The checkpoints that a run begins from or validates, and a digest of each, so that others in their place show."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from loopwright.checkpoint import expand, resolve
from loopwright.experiment.jobs.settings import JobSettings


def origins(settings: JobSettings) -> list[Path]:
    """The checkpoints that the settings of a run mean.

    Raises:
        CheckpointError: if one is not there, or none of a run is good.
    """
    if settings.ckpt_paths is not None:
        return expand(settings.ckpt_paths)
    path = settings.ckpt_path or settings.init_from
    return [] if path is None else [resolve(path)]


def origin_digests(checkpoints: Iterable[Path]) -> dict[str, str | None]:
    """By folder, the SHA-256 of a checkpoint's manifest, which has those of its files; None: it cannot be read."""
    found: dict[str, str | None] = {}
    for folder in checkpoints:
        try:
            found[str(folder)] = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
        except OSError:
            found[str(folder)] = None
    return found
