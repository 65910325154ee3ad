"""Run directories of strangers, for tests that commands which only read run nothing and change nothing."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from left_runs import leave_run
from special import KINDS, make

HOSTILE = "\x1b[31m\u202e|`<script>\n"


def plant(root: Path) -> int:
    """Write 24 directories of strangers below ``root``, and return their number."""
    outputs = root / "outputs"
    texts = [
        "", "{", "[]", "null", '{"state": 3}', '{"state": "running"}', '{"state": "completed", "metrics": [1]}',
        json.dumps({"state": "completed", "global_step": 10**400}), "[" * 100_000, '{"a": ' * 60 + "1" + "}" * 60,
        json.dumps(dict.fromkeys(("state", "error", "command", "objective_name"), HOSTILE)),
        json.dumps({"state": "failed", "changes": {HOSTILE: [1, HOSTILE]}, "metrics": {HOSTILE: 1.0}}),
        json.dumps({"state": "completed", "started": "9999-12-31T23:59:59+00:00", "seconds": 1e308}),
        json.dumps({"state": "completed", "origins": {HOSTILE: None}, "objective": "-Infinity"}),
        '{"state": "completed", "objective": 1e999, "best": {"name": "val/loss", "value": "NaN", "step": -1}}',
    ]  # fmt: skip
    for number, text in enumerate(texts):
        run = outputs / "texts" / f"2026-11-01_00-00-00_{number:06}"
        run.mkdir(parents=True)
        (run / "summary.json").write_text(text)
    for number, kind in enumerate((*KINDS, "holes")):
        run = outputs / "kinds" / f"2026-11-01_00-00-00_0000{number}a"
        run.mkdir(parents=True)
        for name in ("summary.json", "config.yaml", "plan.json", "metrics.jsonl", ".lock"):
            make(run / name, kind)
    sweep = outputs / "kinds" / "2026-11-01_00-00-00_00000b_sweep"
    sweep.mkdir()
    (sweep / "sweep.json").write_text('{"schema": 1, "jobs": [{"directory": "../../../.."}]}')
    run = leave_run(outputs, "00000c", name="configs", config="!!python/object/apply:os.system ['touch it_ran']\n")
    (run / "metrics.jsonl").write_bytes(b'\xff\x00{"step": 1e999, "name": 3, "value": []}\n' * 10)
    leave_run(outputs, "00000d", name="configs", config="a: &a [1]\nb: [*a, *a]\n", state="running")
    leave_run(outputs, "00000e", name=HOSTILE.replace("/", "").strip(), values={HOSTILE: ["NaN"]}, state="running")
    os.symlink("/", outputs / "root")
    return len(texts) + len(KINDS) + 1 + 4


def state_of_files(root: Path) -> list[tuple[str, int, int, str]]:
    """Return the path, the size, the time and, if it is small, the content of each file."""
    found = []
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        is_small = path.is_file() and not path.is_symlink() and status.st_size < 1 << 20
        content = hashlib.sha256(path.read_bytes()).hexdigest() if is_small else ""
        found.append((str(path), status.st_size, status.st_mtime_ns, content))
    return found
