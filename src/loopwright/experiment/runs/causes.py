"""Functions that write and read the files in which the processes of a run record why a process has ended.

The folder ``ranks`` of the run directory contains these files. For example, ``process-1.json`` contains the process ID
of rank 1, and ``cause-1.json`` contains the error that ended rank 1. Process 0 writes the exit code of the whole run to
``ended.json``.
"""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loopwright.device import is_peer_error
from loopwright.experiment.console.messages import one_line, one_line_of
from loopwright.regular_files import read_regular, replace_file

FOLDER = "ranks"
_MAX_BYTES = 1 << 20
_POLL_SECONDS = 0.05
_WRITE_SECONDS = 0.5  # wait for the file ``cause-*.json`` of a process that has ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """The reason why a process has ended.

    Args:
        rank: index of the process.
        line: error message on one line.
        traceback: traceback of the error; empty if there is none.
        is_own: True if the error arose in this process; False if it is a consequence of the end of another process.
        exit_code: exit code of the run after this error.
        seconds: time of the end, in seconds since 1970.
    """

    rank: int
    line: str
    traceback: str = ""
    is_own: bool = True
    exit_code: int = 1
    seconds: float = 0.0


def begin(directory: Path, rank: int) -> None:
    """Write the ID of this process to the file ``process-RANK.json``."""
    folder = directory / FOLDER
    folder.mkdir(exist_ok=True)
    _write(folder / f"process-{rank}.json", {"process_id": os.getpid()})


def write_cause(directory: Path, rank: int, error: BaseException, exit_code: int) -> None:
    """Write the error that ends this process. An `OSError` is ignored, because the process ends anyway."""
    cause = Cause(
        rank=rank,
        line=one_line_of(error),
        traceback="".join(traceback.format_exception(error)).rstrip(),
        is_own=not is_peer_error(error),
        exit_code=exit_code,
        seconds=time.time(),
    )
    with suppress(OSError):
        (directory / FOLDER).mkdir(parents=True, exist_ok=True)
        _write(directory / FOLDER / f"cause-{rank}.json", asdict(cause))


def write_end(directory: Path, exit_code: int) -> None:
    """Write the exit code of the run to the file ``ended.json``."""
    _write(directory / FOLDER / "ended.json", {"exit_code": exit_code})


def read_end(directory: Path) -> int | None:
    """Return the exit code of the run; None if process 0 has not written it."""
    code = _read(directory / FOLDER / "ended.json").get("exit_code")
    return code if isinstance(code, int) else None


def find_cause(directory: Path, *, without: int | None = None, within_seconds: float = 0.0) -> Cause | None:
    """Return the earliest error that arose in a process of the run; None if there is no cause.

    If no process has recorded such an error, the cause is the end of a process that recorded no error, for example
    because of the signal SIGKILL.

    Args:
        directory: run directory.
        without: rank of a process to ignore; None: no process is ignored.
        within_seconds: seconds to wait for a cause.
    """
    deadline = time.monotonic() + within_seconds
    killed_since: float | None = None
    while True:
        found = [cause for cause in _causes(directory) if cause.rank != without]
        own = sorted((cause for cause in found if cause.is_own), key=lambda cause: cause.seconds)
        if own:
            return own[0]
        ended = {without, *(cause.rank for cause in found)}
        killed = [rank for rank, process_id in processes(directory) if rank not in ended and not _is_alive(process_id)]
        now = time.monotonic()
        killed_since = (killed_since or now) if killed else None
        if killed_since is not None and (now > deadline or now - killed_since > _WRITE_SECONDS):
            return Cause(rank=killed[0], line="the process was killed, or ended without a message")
        if now > deadline:
            return None
        time.sleep(_POLL_SECONDS)


def processes(directory: Path) -> Iterator[tuple[int, int]]:
    """Yield the rank and the process ID of each process that has called `begin`."""
    for path in sorted((directory / FOLDER).glob("process-*.json")):
        rank, process_id = path.stem.partition("-")[2], _read(path).get("process_id")
        if rank.isdigit() and isinstance(process_id, int):
            yield int(rank), process_id


def remove_files(directory: Path) -> None:
    """Remove the files that an earlier start of the run has left, because this start must not read them."""
    for path in (directory / FOLDER).glob("*"):
        with suppress(OSError):
            path.unlink()
    with suppress(OSError):
        (directory / FOLDER).rmdir()


def _causes(directory: Path) -> Iterator[Cause]:
    for path in (directory / FOLDER).glob("cause-*.json"):
        values = _read(path)
        with suppress(TypeError, ValueError):
            cause = Cause(**values)
            yield Cause(**{**asdict(cause), "line": one_line(cause.line), "rank": int(cause.rank)})


def _is_alive(process_id: int) -> bool:
    """Return whether a process runs. A zombie process does not run."""
    with suppress(OSError, IndexError):
        return Path(f"/proc/{process_id}/stat").read_text(encoding="ascii", errors="replace").rsplit(")")[1][1] != "Z"
    try:
        os.kill(process_id, 0)
    except OSError:
        return False
    return not Path("/proc/self/stat").exists()


def _write(path: Path, values: dict[str, Any]) -> None:
    replace_file(path, (json.dumps(values) + "\n").encode())


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(read_regular(path, _MAX_BYTES))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
