"""`read_lineage` over runs that start from one another, that were moved, and whose summaries are hostile."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from left_runs import leave_run, write_run
from loopwright.records.lineage import Relative, read_lineage
from special import KINDS, make


def leave(outputs: Path, digits: str, *starts: Path, **more: Any) -> Path:
    """Write a run that starts from the checkpoints ``starts`` and has saved a checkpoint of its own at step 10."""
    origins = {str(path): {"sha256": digest(path), "run": path.parents[1].name[-6:], "step": 10} for path in starts}
    run = leave_run(outputs, digits, checkpoints=[10], **{"origins": origins, **more})
    (saved(run) / "manifest.json").write_text(json.dumps({"step": 10, "of": digits}))
    return run


def saved(run: Path, step: int = 10) -> Path:
    return run / "checkpoints" / f"step_{step:08}"


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()


def shown(tree: list[Relative]) -> list[tuple[str, str, int | None]]:
    return [(each.relation, each.directory.name[-6:], each.above) for each in tree]


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """Runs of which each starts from the one before, and a second run that starts from the first."""
    outputs = tmp_path / "outputs"
    first = leave(outputs, "00000a")
    second = leave(outputs, "00000b", saved(first), day=2)
    leave(outputs, "00000c", saved(second), day=3, resumes=[{"checkpoint": "step_00000010"}, {"checkpoint": 3}, 4])
    leave(outputs, "00000d", saved(first), day=4)
    return outputs


def run_of(outputs: Path, digits: str) -> Path:
    (found,) = outputs.glob(f"*/*_{digits}")
    return found


def test_the_tree_contains_the_runs_above_and_below(outputs: Path) -> None:
    tree = read_lineage(run_of(outputs, "00000b"), [outputs])
    assert shown(tree) == [("ancestor", "00000a", None), ("run", "00000b", 0), ("descendant", "00000c", 1)]
    assert [[origin.step for origin in each.origins] for each in tree] == [[], [10], [10]]
    assert [each.checkpoint for each in tree] == ["unknown", "unchanged", "unchanged"]
    assert tree[2].resumed_from == (10,) and tree[2].others == ()
    whole = read_lineage(run_of(outputs, "00000a"), [outputs])
    assert shown(whole)[1:] == [("descendant", "00000b", 0), ("descendant", "00000c", 1), ("descendant", "00000d", 0)]


def test_relative_paths_refer_to_the_directory_in_which_a_run_was_started(tmp_path: Path) -> None:
    first = leave(tmp_path / "here" / "outputs", "00000a")
    start = saved(first).relative_to(tmp_path / "here")
    origins = {str(start): digest(saved(first))}  # as earlier versions recorded it
    second = leave_run(tmp_path / "other", "00000b", origins=origins, cwd=str(tmp_path / "here"))
    assert shown(read_lineage(second, []))[0] == ("ancestor", "00000a", None)


@pytest.mark.parametrize("is_renamed", [False, True])
def test_a_run_that_was_moved_is_found(is_renamed: bool, outputs: Path) -> None:
    first = run_of(outputs, "00000a")
    moved = outputs / "kept" / ("best" if is_renamed else first.name)
    moved.parent.mkdir()
    shutil.move(first, moved)
    if not is_renamed:
        shutil.rmtree(moved / "checkpoints")  # found by its name
    tree = read_lineage(run_of(outputs, "00000c"), [outputs])
    assert tree[0].directory == moved and shown(tree)[1:] == [("ancestor", "00000b", 0), ("run", "00000c", 1)]
    assert tree[1].checkpoint == ("unchanged" if is_renamed else "removed")
    assert [each.directory.name[-6:] for each in read_lineage(moved, [outputs])[1:]] == ["00000b", "00000c", "00000d"]


def test_another_run_at_the_old_place_is_a_changed_checkpoint(outputs: Path) -> None:
    first = run_of(outputs, "00000a")
    (saved(first) / "manifest.json").write_text("{}")
    tree = read_lineage(run_of(outputs, "00000b"), [outputs])
    assert (shown(tree)[0][1], tree[1].checkpoint) == ("00000a", "changed")


def test_a_run_that_is_gone_is_named(outputs: Path) -> None:
    shutil.rmtree(run_of(outputs, "00000a"))
    tree = read_lineage(run_of(outputs, "00000b"), [outputs])
    assert (tree[0].run, tree[0].note, tree[0].directory.name[-6:]) == (None, "not found", "00000a")
    assert [origin.step for origin in tree[1].origins] == [10]


def test_a_checkpoint_outside_a_run_directory_is_named(outputs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "imported"
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")
    run = leave_run(outputs, "00000e", origins={str(folder): {"sha256": digest(folder), "run": None, "step": 0}})
    tree = read_lineage(run, [outputs])
    assert (tree[0].directory, tree[0].note) == (folder, "checkpoint outside a run directory")
    assert [origin.step for origin in tree[1].origins] == [0]
    copied = tmp_path / "copied"
    shutil.copytree(saved(run_of(outputs, "00000b")), copied)
    run = leave_run(outputs, "00000f", origins={str(copied): {"sha256": digest(copied), "run": None, "step": 10}})
    assert [each.directory.name[-6:] for each in read_lineage(run, [outputs])] == ["00000a", "00000b", "00000f"]


def test_checkpoints_of_several_runs(outputs: Path) -> None:
    starts = [saved(run_of(outputs, digits)) for digits in ("00000c", "00000d")]
    run = leave(outputs, "00000e", *starts, day=5)
    tree = read_lineage(run, [outputs])
    assert [each.directory.name[-6:] for each in tree] == ["00000a", "00000b", "00000c", "00000e"]
    assert [origin.text for origin in tree[-1].others] == ["00000d, step 10"]
    assert shown(read_lineage(run_of(outputs, "00000d"), [outputs]))[-1] == ("descendant", "00000e", 1)


def test_jobs_of_sweeps_are_found(outputs: Path) -> None:
    sweep = outputs / "digits" / "2026-11-09_00-00-00_00000f_sweep"
    start = saved(run_of(outputs, "00000c"))
    for number in range(12):
        write_run(sweep / str(number), origins={str(start): digest(start)}, checkpoints=[10])
    (sweep / "sweep.json").write_text("{}")
    tree = read_lineage(run_of(outputs, "00000c"), [outputs])
    assert [each.directory.name for each in tree[3:]] == [str(number) for number in range(12)]
    assert {each.above for each in tree[3:]} == {2}


@pytest.mark.parametrize("length", [1, 2, 3, 150])
def test_cycles_end(length: int, tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    names = [f"{number:06x}" for number in range(length)]
    paths = [outputs / "digits" / f"2026-11-01_09-15-05_{name}" for name in names]
    for place, name in enumerate(names):
        leave_run(outputs, name, origins={str(saved(paths[place - 1])): None})
    tree = read_lineage(paths[-1], [outputs])
    assert len({each.directory for each in tree}) == len(tree) == length
    notes = [each.note for each in tree if each.note is not None]
    if length <= 100:
        assert length == 1 or notes == [f"starts from {names[-1]}, step 10, which is below it"]
    else:
        assert notes == ["more than 100 generations; earlier runs are not shown"]


HOSTILE: list[Any] = [
    {"\x1b[31m/checkpoints/step_00000001": {"run": "\x1b[31m", "step": 1}},
    {"/": None, "/proc/self/fd/0": None, "/dev/zero": None, "..": None, "/../checkpoints/step_00000001": None},
    {"checkpoints/step_00000001": None},
    {f"outputs/{number}/checkpoints/step_00000001": "0" * 64 for number in range(3000)},
    {"a\ud800": "x", "\0": None, "a" * 4000: None},
    [1],
]


@pytest.mark.parametrize("origins", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_origins_end_cleanly(origins: Any, outputs: Path) -> None:
    run = leave_run(outputs, "00000e", origins=origins, cwd="/", resumes=[{"checkpoint": "\0"}])
    tree = read_lineage(run, [outputs])
    assert tree[-1].directory == run and len(tree) <= 2
    assert all(each.run is None for each in tree[:-1])


@pytest.mark.parametrize("kind", [*KINDS, "holes"])
def test_manifests_that_are_not_regular_are_not_read(kind: str, outputs: Path) -> None:
    folder = saved(run_of(outputs, "00000a"))
    make(folder / "manifest.json", kind)
    tree = read_lineage(run_of(outputs, "00000b"), [outputs])
    assert (shown(tree)[0][1], tree[1].checkpoint) == ("00000a", "removed")
