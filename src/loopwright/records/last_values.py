"""`with_logged`, which adds the logged metrics to the record of a run that has recorded no end."""

from __future__ import annotations

import json
from dataclasses import replace

from loopwright.errors import CheckpointError
from loopwright.records.run_record import BestValue, RunRecord
from loopwright.records.series import METRICS_FILE, Series, parse_entry, read_record

_MAX_BYTES = 64 << 20  # a larger file is not read
_TAIL_BYTES = 64 << 10  # bytes at the end of the file in which the last value of each metric is searched


def with_logged(run: RunRecord) -> RunRecord:
    """Return the record with the last logged values, if the run is "running" or "lost". Its summary contains none.

    The objective is read from the whole ``metrics.jsonl``, all other metrics from the end of this file. A file of more
    than 64 MiB is not read.
    """
    if run.state not in ("running", "lost"):
        return run
    try:
        data = read_record(run.directory / METRICS_FILE, _MAX_BYTES)
    except CheckpointError:
        return run
    if not data:
        return run
    metrics = dict(run.metrics)
    last_step = run.global_step
    for line in data[-_TAIL_BYTES:].splitlines():
        if (entry := parse_entry(line.decode(errors="replace"))) is not None:
            metrics[entry[0]], last_step = entry[2], max(last_step, entry[1])
    objective = _series(data, run.objective_name)
    found = None if objective is None or run.objective_mode is None else objective.best(run.objective_mode)
    return replace(
        run,
        global_step=last_step,
        metrics=metrics,
        objective=run.objective if objective is None else objective.values[-1],
        best=run.best if found is None else BestValue(run.objective_name, found[1], found[0]),
    )


def _series(data: bytes, name: str) -> Series | None:
    """Return the values of one metric. Only lines that contain its name are parsed."""
    needle = json.dumps(name).encode()
    entries = (parse_entry(line.decode(errors="replace")) for line in data.splitlines() if needle in line)
    points = {step: value for entry in entries if entry is not None and entry[0] == name for step, value in [entry[1:]]}
    return Series(name, sorted(points), [points[step] for step in sorted(points)]) if points else None
