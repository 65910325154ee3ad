"""`read_lineage`, which finds where the weights of a run come from, and which runs start from its checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from loopwright.records.known_runs import CheckpointState, KnownRuns, Start, directory_key
from loopwright.records.last_values import with_logged
from loopwright.records.origins import Origin, step_in_name
from loopwright.records.run_record import RunRecord, is_run, read_run

_MAX_GENERATIONS = 100  # ancestors of a run that are followed
_MAX_RUNS = 1000  # runs in a tree


@dataclass(frozen=True, slots=True, kw_only=True)
class Relative:
    """A run in the tree of a lineage.

    Attributes:
        relation: whether the weights of the given run come from this run, whether this is the given run, or whether
            this run starts from the weights of the given run.
        above: position in the tree of the run that saved the weights; None for the first run.
        run: what the run directory shows; None if the run is not found.
        directory: path of the run directory, or of a checkpoint outside a run directory. It need not exist.
        origins: checkpoints of the run above from which this run starts, or which it validates.
        others: checkpoints of other runs from which this run also starts, or which it also validates.
        checkpoint: whether the first of ``origins`` is "unchanged", "changed" or "removed"; otherwise, "unknown".
        resumed_from: step of each checkpoint from which the run was resumed.
        note: why the tree does not go further at this run; None if it does.
    """

    relation: Literal["ancestor", "run", "descendant"]
    above: int | None
    run: RunRecord | None
    directory: Path
    origins: tuple[Origin, ...] = ()
    others: tuple[Origin, ...] = ()
    checkpoint: CheckpointState = "unknown"
    resumed_from: tuple[int, ...] = ()
    note: str | None = None


def read_lineage(directory: Path, roots: Sequence[Path]) -> list[Relative]:
    """Return the runs from which the weights of a run come, this run, and the runs that start from its checkpoints.

    The runs are in the order of the tree: a run precedes the runs that start from it. Of a run that starts from the
    checkpoints of several runs, only the first of these is followed. A run that was moved is found by the digest of its
    checkpoint. Nothing is written.

    Args:
        directory: run directory.
        roots: directories below which other runs are searched, such as ``outputs``.

    Raises:
        CheckpointError: if the directory contains no run.
    """
    run = read_run(directory)
    known = KnownRuns(roots, [directory])
    tree = _ancestors(known, directory)
    starts = known.starts_of(directory)
    tree.append(_relative("run", len(tree) - 1 if tree else None, run, directory, starts, tree[-1] if tree else None))
    _append_descendants(tree, known, directory)
    return tree


def resume_steps(run: RunRecord) -> tuple[int, ...]:
    """Return the step of each checkpoint from which a run was resumed. Entries of another form are left out."""
    resumes = run.summary.get("resumes")
    names = [each.get("checkpoint") for each in resumes if isinstance(each, dict)] if isinstance(resumes, list) else []
    steps = [step_in_name(Path(name)) for name in names if isinstance(name, str) and "\0" not in name]
    return tuple(step for step in steps if step is not None)


def _ancestors(known: KnownRuns, directory: Path) -> list[Relative]:
    """Return the runs from which the weights of a run come, the oldest first."""
    upwards: list[tuple[Path, Start]] = []  # each run with the start that leads to the run above it
    seen, current, note = {directory_key(directory)}, directory, None
    while starts := known.starts_of(current):
        upwards.append((current, starts[0]))
        parent = starts[0].parent
        if parent is None:
            break
        if directory_key(parent) in seen:
            note, upwards = f"starts from {starts[0].origin.text}, which is below it", upwards[:-1]
            break
        if len(upwards) == _MAX_GENERATIONS:
            note = f"more than {_MAX_GENERATIONS} generations; earlier runs are not shown"
            break
        seen.add(directory_key(parent))
        current = parent
    tree: list[Relative] = []
    for _, start in reversed(upwards):
        place = start.parent or start.origin.run_dir or Path(start.origin.path)
        own = [] if start.parent is None else known.starts_of(start.parent)
        run = read_run(start.parent) if start.parent is not None and is_run(start.parent) else None
        if run is None:
            is_there = start.checkpoint in ("unchanged", "changed")
            note = "checkpoint outside a run directory" if is_there else "not found"
        above = tree[-1] if tree else None
        relative = _relative("ancestor", len(tree) - 1 if tree else None, run, place, own, above, note)
        tree.append(relative)
        note = None
    return tree


def _append_descendants(tree: list[Relative], known: KnownRuns, directory: Path) -> None:
    """Append the runs that start from a run, which is the last in the tree, and the runs that start from these.

    A run that starts from several runs of the tree is placed below the run of the earliest generation.
    """
    seen = {directory_key(each.directory) for each in tree}
    below: dict[Path, list[Path]] = {}
    generation = [directory]
    while generation and len(seen) < _MAX_RUNS:
        for parent in generation:
            new = [child for child in known.children_of(parent) if directory_key(child) not in seen and is_run(child)]
            seen.update(map(directory_key, new))
            below[parent] = new
        generation = [child for parent in generation for child in below[parent]]
    waiting = [(child, len(tree) - 1) for child in reversed(below.get(directory, []))]
    while waiting:
        child, above = waiting.pop()
        tree.append(_relative("descendant", above, read_run(child), child, known.starts_of(child), tree[above]))
        waiting += [(each, len(tree) - 1) for each in reversed(below.get(child, []))]


def _relative(
    relation: Literal["ancestor", "run", "descendant"],
    above: int | None,
    run: RunRecord | None,
    directory: Path,
    starts: Sequence[Start],
    parent: Relative | None,
    note: str | None = None,
) -> Relative:
    """Return a run of the tree. Its starts are divided into those from the run above and all others."""
    key = None if parent is None else directory_key(parent.directory)
    is_own = [
        parent is not None and (each.parent is None if parent.run is None else _is_at(each.parent, key))
        for each in starts
    ]
    own = [each for each, is_above in zip(starts, is_own, strict=True) if is_above]
    return Relative(
        relation=relation,
        above=above,
        run=None if run is None else with_logged(run),
        directory=directory,
        origins=tuple(each.origin for each in own),
        others=tuple(each.origin for each, is_above in zip(starts, is_own, strict=True) if not is_above),
        checkpoint=own[0].checkpoint if own else "unknown",
        resumed_from=() if run is None else resume_steps(run),
        note=note,
    )


def _is_at(directory: Path | None, key: tuple[int, int] | None) -> bool:
    return directory is not None and directory_key(directory) == key
