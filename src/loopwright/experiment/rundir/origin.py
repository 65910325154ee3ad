"""Functions that find the checkpoints that a run starts from or validates, and compute their SHA-256 digests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from loopwright.checkpoint import expand, resolve
from loopwright.checkpoint.files import MANIFEST, MAX_MANIFEST_BYTES
from loopwright.experiment.jobs.job_settings import JobSettings
from loopwright.records.origins import Origin, run_in_path, step_in_name
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
    """Return the digest of each checkpoint, by path; see `described`."""
    return {origin.path: origin.sha256 for origin in described(checkpoints)}


def described(checkpoints: Iterable[Path]) -> list[Origin]:
    """Return the digest, the run and the step of each checkpoint.

    The digest is the SHA-256 of the manifest, or None for an unreadable manifest. A manifest contains the digests of
    all other files of the checkpoint. If any of these files is replaced by a file with different content, the manifest
    has another SHA-256.
    """
    return [_described(folder) for folder in checkpoints]


def _described(folder: Path) -> Origin:
    try:
        manifest = read_regular(folder / MANIFEST, MAX_MANIFEST_BYTES)
    except OSError:
        manifest = None
    return Origin(
        path=str(folder),
        sha256=None if manifest is None else hashlib.sha256(manifest).hexdigest(),
        run=run_in_path(folder.absolute()),
        step=_step(manifest) if step_in_name(folder) is None else step_in_name(folder),
    )


def _step(manifest: bytes | None) -> int | None:
    """Return the step in a manifest; None if it contains none."""
    try:
        step = json.loads(manifest or b"{}")["step"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return step if type(step) is int and 0 <= step < 2**63 else None
