"""Malicious checkpoints, read in a subprocess by every function that reads checkpoints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import checkpoint_attacks
import loopwright
from checkpoint_attacks import ATTACKS, new_trainer
from loopwright.device import Device
from ranked import on_ranks
from tiny import batches

pytestmark = pytest.mark.slow

MAX_SECONDS = 10
MAX_EXTRA_BYTES = 1 << 28


def save_shards(rank: int, path: Path) -> None:
    maker = new_trainer(device=Device(kind="cpu", strategy="fsdp"))
    maker.fit(batches(5))
    maker.save_checkpoint(path)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The result of each attack. The first result, without an attack, shows the cost of reading a good checkpoint."""
    folder = tmp_path_factory.mktemp("attacks")
    maker = new_trainer()
    maker.fit(batches(5))
    maker.save_checkpoint(folder / "good")
    on_ranks(2, save_shards, folder / "shards")
    paths = [str(Path(each).resolve().parent) for each in (loopwright.__path__[0], checkpoint_attacks.__file__)]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*paths, *filter(None, [os.environ.get("PYTHONPATH")])]),
        "CHECKPOINT_ATTACKS_RAN": str(folder / "ran"),
    }
    command = [sys.executable, checkpoint_attacks.__file__, str(folder)]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=400)
    assert answer.returncode == 0, answer.stderr
    assert not (folder / "ran").exists()
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


def test_a_good_checkpoint_is_read_by_every_reader(results: dict[str, Any]) -> None:
    assert set(results["no attack"]["errors"]) == set(results["no attack on shards"]["errors"]) == {""}
    assert len(results) == len(ATTACKS) + 2 > 120


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_refused_in_one_line_and_opens_no_other_file(name: str, results: dict[str, Any]) -> None:
    found = results[name]
    assert found["errors"][0] != "", "reading the whole checkpoint raised no error"
    assert [error for error in found["errors"] if error.endswith("!")] == [], "an error was not a CheckpointError"
    assert all(error.isprintable() and len(error) < 2000 for error in found["errors"])
    assert found["run"] == []
    assert [path for path in found["opened"] if not path.startswith(found["folder"])] == []
    assert found["seconds"] < MAX_SECONDS
    assert found["max_rss_bytes"] - results["no attack"]["max_rss_bytes"] < MAX_EXTRA_BYTES
