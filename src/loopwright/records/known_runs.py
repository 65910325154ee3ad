"""`KnownRuns`, which finds the run that saved a checkpoint, and the runs that start from the checkpoints of a run.

Summaries may come from an untrusted source. A path in a summary is only used to read the summary and the manifests of a
run directory at this place.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from loopwright.errors import CheckpointError
from loopwright.records.origins import CHECKPOINTS, Origin, read_origins
from loopwright.records.run_record import find_runs, has_run_id, is_run
from loopwright.records.series import read_summary
from loopwright.regular_files import read_regular

_MANIFEST = "manifest.json"
_MAX_MANIFEST_BYTES = 1 << 20
_MAX_ORIGINS = 1000  # checkpoints of one run that are followed

CheckpointState = Literal["unchanged", "changed", "removed", "unknown"]
_Key = tuple[int, int]  # device and inode of a directory


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A checkpoint from which a run starts, and the run that saved it.

    Attributes:
        origin: recorded checkpoint.
        parent: directory of the run that saved the checkpoint; None if it is not found.
        checkpoint: "unchanged" or "changed" since the run started, "removed", or "unknown" if no digest was recorded or
            the run is not found. A checkpoint outside a run directory has a state, but no parent.
    """

    origin: Origin
    parent: Path | None
    checkpoint: CheckpointState


class KnownRuns:
    """The runs below some directories, and the checkpoints from which each of them starts.

    Args:
        roots: directories such as ``outputs``.
        others: further run directories.
    """

    def __init__(self, roots: Sequence[Path], others: Sequence[Path] = ()) -> None:
        self._paths: dict[_Key, Path] = {}
        for directory in (*_all_runs(roots), *others):
            if (key := directory_key(directory)) is not None:
                self._paths.setdefault(key, directory)
        self._directories = list(self._paths.values())
        self._by_name: dict[str, list[Path]] = {}
        for directory in self._directories:
            self._by_name.setdefault(_long_name(directory), []).append(directory)
        recorded = [(directory, *_recorded(directory)) for directory in self._directories]
        self._recorded = {directory: (cwd, origins) for directory, cwd, origins in recorded if origins}
        self._by_digest: dict[str, Path] | None = None
        self._children: dict[_Key, list[Path]] | None = None

    def starts_of(self, directory: Path) -> list[Start]:
        """Return the checkpoints from which a run starts. At most 1,000 checkpoints are followed."""
        cwd, origins = self._recorded.get(directory) or _recorded(directory)
        return [self._located(origin, cwd) for origin in origins[:_MAX_ORIGINS]]

    def children_of(self, directory: Path) -> list[Path]:
        """Return the runs that start from a checkpoint of a run, in the order of their names."""
        if self._children is None:
            self._children = {}
            for child in self._recorded:
                parents = {key for start in self.starts_of(child) if (key := _key_of(start)) is not None}
                for parent in parents - {directory_key(child)}:
                    self._children.setdefault(parent, []).append(child)
        key = directory_key(directory)
        return [] if key is None else sorted(self._children.get(key, []), key=_order)

    def _located(self, origin: Origin, cwd: Path) -> Start:
        """Find the run that saved a checkpoint: at its path, by its digest, or by the name of the run directory."""
        places = [place for path in dict.fromkeys((cwd / origin.path, Path(origin.path))) if (place := _place(path))]
        for run_dir, folder in places:
            state = _state(folder, origin)
            if state != "changed":
                return Start(origin=origin, parent=self._known_path(run_dir), checkpoint=state)
        if origin.sha256 is not None and (moved := self._digests().get(origin.sha256)) is not None:
            return Start(origin=origin, parent=moved, checkpoint="unchanged")
        if places:
            return Start(origin=origin, parent=self._known_path(places[0][0]), checkpoint="changed")
        name = "" if origin.run_dir is None else _long_name(origin.run_dir)
        for directory in self._by_name.get(name, []) if has_run_id(name.partition("/")[0]) else []:
            state = _state(directory / CHECKPOINTS / Path(origin.path).name, origin)
            if state != "changed":
                return Start(origin=origin, parent=directory, checkpoint=state)
        state = _state(cwd / origin.path, origin) if origin.run_dir is None else "unknown"
        return Start(origin=origin, parent=None, checkpoint=state)

    def _known_path(self, directory: Path) -> Path:
        """Return the path with which a run directory was found below the roots."""
        key = directory_key(directory)
        return directory if key is None else self._paths.get(key, directory)

    def _digests(self) -> dict[str, Path]:
        """Return the run of each checkpoint by the digest of its manifest. Only steps that runs start from are read."""
        if self._by_digest is None:
            wanted = {Path(origin.path).name for _, origins in self._recorded.values() for origin in origins}
            self._by_digest = {}
            for directory in self._directories:
                for folder in _checkpoints(directory, wanted):
                    if (digest := _digest(folder)) is not None:
                        self._by_digest.setdefault(digest, directory)
        return self._by_digest


def directory_key(directory: Path) -> tuple[int, int] | None:
    """Return a key that is equal for all paths of one directory; None if there is no such directory."""
    try:
        found = os.stat(directory)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def is_job_name(name: str) -> bool:
    """Return whether a directory has the name of a job: a number of at most nine digits."""
    return name.isascii() and name.isdecimal() and len(name) < 10


def _key_of(start: Start) -> _Key | None:
    return None if start.parent is None else directory_key(start.parent)


def _all_runs(roots: Sequence[Path]) -> Iterator[Path]:
    """Yield the runs below directories, and the jobs of the sweeps below them."""
    for root in {directory_key(each): each for each in reversed(roots)}.values():
        runs, sweeps = find_runs(root)
        yield from runs
        for sweep in sweeps:
            try:
                with os.scandir(sweep) as entries:
                    names = [
                        each.name for each in entries if is_job_name(each.name) and each.is_dir(follow_symlinks=False)
                    ]
            except OSError:
                continue
            yield from (sweep / name for name in sorted(names, key=lambda name: (len(name), name)))


def _recorded(directory: Path) -> tuple[Path, list[Origin]]:
    """Return the directory in which a run was started, and the checkpoints from which it starts."""
    try:
        summary = read_summary(directory)
    except CheckpointError:
        return Path(), []
    cwd = summary.get("cwd")
    is_path = isinstance(cwd, str) and len(cwd) < 4096 and "\0" not in cwd
    return Path(str(cwd)) if is_path else Path(), read_origins(summary)


def _place(folder: Path) -> tuple[Path, Path] | None:
    """Return the run directory that contains a checkpoint folder, and the folder; None if there is no such run."""
    run_dir = folder.parent.parent
    try:
        return (run_dir, folder) if folder.parent.name == CHECKPOINTS and is_run(run_dir) else None
    except (OSError, ValueError):
        return None


def _state(folder: Path, origin: Origin) -> CheckpointState:
    """Return whether a checkpoint is still the checkpoint from which a run started."""
    digest = _digest(folder)
    if digest is None:
        return "removed"
    return "unknown" if origin.sha256 is None else "unchanged" if digest == origin.sha256 else "changed"


def _digest(folder: Path) -> str | None:
    """Return the SHA-256 of the manifest of a checkpoint; None if there is no regular file with this name."""
    try:
        return hashlib.sha256(read_regular(folder / _MANIFEST, _MAX_MANIFEST_BYTES)).hexdigest()
    except (OSError, ValueError):
        return None


def _checkpoints(directory: Path, names: Iterable[str]) -> list[Path]:
    """Return the checkpoint folders of a run with one of these names."""
    try:
        with os.scandir(directory / CHECKPOINTS) as entries:
            return [Path(each.path) for each in entries if each.name in names and each.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def _order(directory: Path) -> tuple[str, int, str]:
    """Return a key that sorts runs by the time in their names, and the jobs of a sweep by their numbers."""
    is_job = is_job_name(directory.name)
    return (directory.parent.name, int(directory.name), "") if is_job else (directory.name, 0, str(directory))


def _long_name(directory: Path) -> str:
    """Return the name of a run directory. The name of a job begins with the name of its sweep."""
    return f"{directory.parent.name}/{directory.name}" if is_job_name(directory.name) else directory.name
