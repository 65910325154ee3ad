"""Commands on a run directory of unknown origin: what its files declare is not allocated, and nothing changes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from command import Answer, run_in
from limited import limited

TERABYTES = 3 << 40


def on_run(directory: Path, *words: str) -> Answer:
    return limited(run_in, directory, *words)


@pytest.mark.parametrize(
    ("verb", "name"),
    [
        ("resume", "summary.json"),
        ("resume", "environment.json"),
        ("resume", "command.txt"),
        ("reproduce", "summary.json"),
        ("reproduce", "environment.json"),
        ("reproduce", "git.diff"),
        ("reproduce", "metrics.jsonl"),
    ],
)
def test_a_record_of_terabytes_of_holes_is_refused(verb: str, name: str, recorded: Path, tmp_path: Path) -> None:
    (recorded / name).touch()
    os.truncate(recorded / name, TERABYTES)
    words = ["loop.max_steps=6"] if verb == "resume" else []
    summary = (recorded / "summary.json").stat().st_mtime_ns
    answer = on_run(tmp_path, verb, "run", *words)
    assert answer.code == 3, answer
    assert f"run/{name}: cannot be read: " in answer.err and answer.err.count("\n") == 1
    assert (recorded / "summary.json").stat().st_mtime_ns == summary


@pytest.mark.parametrize("number", [100_000, 10**30])
def test_a_recorded_number_of_threads_that_no_machine_has_is_refused(
    number: int, recorded: Path, tmp_path: Path
) -> None:
    file = recorded / "environment.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"num_threads": number}))
    text = (recorded / "config.yaml").read_text()
    recorded_number = next(line for line in text.splitlines() if "num_threads: " in line)
    (recorded / "config.yaml").write_text(text.replace(recorded_number, "  num_threads: null"))
    for words in (["resume", "run", "loop.max_steps=6"], ["reproduce", "run"]):
        answer = on_run(tmp_path, *words)
        said = f"run/environment.json: num_threads={number}: expected a whole number from 1 to 1,024.\n"
        assert (answer.code, answer.out, answer.err) == (3, "", said)


@pytest.mark.parametrize(("name", "said"), [("num_threads", "device.num_threads"), ("num_workers", "data.num_workers")])
def test_a_configured_number_that_no_machine_has_is_refused(
    name: str, said: str, recorded: Path, tmp_path: Path
) -> None:
    text = (recorded / "config.yaml").read_text()
    line = next(line for line in text.splitlines() if f"{name}: " in line)
    (recorded / "config.yaml").write_text(text.replace(line, f"  {name}: 1000000"))
    for words in (["resume", "run", "loop.max_steps=6"], ["reproduce", "run"], ["validate", "run"]):
        answer = on_run(tmp_path, *words)
        assert (answer.code, answer.out) == (2, ""), answer
        assert answer.err.startswith(f"{said}=1000000: expected a whole number from ") and answer.err.count("\n") == 1
