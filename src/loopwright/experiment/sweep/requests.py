"""Requests of ``sweep stop`` to the runner of a sweep, as a file in the directory of the sweep.

The file of a job, ``stop`` in its run directory, is read by the job itself; see
`loopwright.experiment.rundir.stop_file`.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from loopwright.errors import CheckpointError
from loopwright.records import read_mapping
from loopwright.regular_files import replace_file

_FILE = "stop.json"


@dataclass(frozen=True, slots=True)
class StopRequest:
    """A request to end jobs.

    Attributes:
        jobs: numbers of the jobs; None: all jobs, and the sweep.
    """

    jobs: tuple[int, ...] | None


def write_request(directory: Path, request: StopRequest) -> None:
    """Write a request, which the runner of the sweep finds within a second.

    Raises:
        OSError: if the file cannot be written.
    """
    jobs = None if request.jobs is None else list(request.jobs)
    replace_file(directory / _FILE, json.dumps({"jobs": jobs}).encode())


def take_request(directory: Path) -> StopRequest | None:
    """Read a request and remove its file; None if there is no request."""
    path = directory / _FILE
    if not os.path.lexists(path):
        return None
    try:
        jobs = read_mapping(path).get("jobs")
    except CheckpointError:
        jobs = []
    with suppress(OSError):
        path.unlink()
    if jobs is None:
        return StopRequest(None)
    return StopRequest(tuple(each for each in jobs if type(each) is int) if isinstance(jobs, list) else ())
