"""Data that cannot be read, through the command: one line that names them, no process left, and a run that says failed.

`errors.txt` holds what some of these say to the letter; here each kind meets each dataloader, here and in workers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import faulty
from command import Answer, is_group_gone, run_dirs, run_process

Cli = Callable[..., Answer]

WORDS = ("--config-dir=conf", "--trust=faulty", "experiment=faulty")


@dataclass(frozen=True)
class Case:
    """Overrides of the data, the exit code, and what the line begins with."""

    words: tuple[str, ...]
    said: str
    code: int = 1


def broken_rows() -> Iterator[Case]:
    """One row of each kind of dataloader, here and in a worker."""
    for kind in ("loader", "torch", "own"):
        for num_workers in (0, 2):
            words = (f"data.kind={kind}", "data.fault=raises", "data.row=6", f"data.num_workers={num_workers}")
            here = " (worker 1)" if num_workers else ""
            said = f"DataError: Rows: sample 6 cannot be read{here}: KeyError: 'no such row'"
            if kind == "own":  # is used as it is, and knows its batches only
                worker = "Caught KeyError in DataLoader worker process 1. KeyError: " if num_workers else ""
                where = "Raised by the training dataloader at micro-batch 1 of pass 0."
                said = f"KeyError: {worker}'no such row'. {where}"
            yield Case(words, said)


def ragged_rows() -> Iterator[Case]:
    for kind in ("loader", "torch"):
        for num_workers, where in ((0, ""), (2, " (worker 1)")):
            words = (f"data.kind={kind}", "data.fault=ragged", f"data.num_workers={num_workers}")
            yield Case(words, f"DataError: Rows: samples 4, 5, 6, 7 make no batch{where}: ")


def dead_workers() -> Iterator[Case]:
    for kind in ("loader", "torch", "own"):
        words = (f"data.kind={kind}", "data.fault=kills", "data.num_workers=2")
        yield Case(words, "DataError: A worker process of a dataloader died: ")


def wrong_lengths() -> Iterator[Case]:
    for num_workers, where in ((0, ""), (2, " (worker 0)")):
        words = ("data.fault=lies", f"data.num_workers={num_workers}")
        yield Case(words, f"DataError: Rows: sample 10 cannot be read{where}: IndexError: list index out of range")
    for name, length, said in (
        ("length", 5, "The training dataloader ended after 4 micro-batches of pass 0; its length says 5."),
        ("length", 3, "The training dataloader goes on after 3 micro-batches of pass 0; its length says no more."),
        ("val_length", 5, "val: the dataloader ended after 4 of the 5 batches in its length."),
        ("val_length", 3, "val: the dataloader goes on after the 3 batches in its length."),
    ):
        yield Case(("data.kind=batches", f"data.{name}={length}", "loop.max_steps=5"), f"DataError: {said}")
    yield Case(("data.num_train=0",), "data: num_micro_batches=0: expected a training dataloader of 1 micro-batch", 2)
    yield Case(("data.num_val=0",), "data: len(val)=0: expected a validation dataloader of 1 batch or more", 2)
    empty = ("data.kind=stream", "data.num_train=0", "data.has_val=false")
    yield Case(empty, "DataError: The training dataloader yields nothing in pass 0: expected at least one micro-batch")


CASES = [*broken_rows(), *ragged_rows(), *dead_workers(), *wrong_lengths()]


def check_failed(answer: Answer, case: Case, here: Path) -> None:
    """One line on the error stream; the run says that it failed, and has the traceback."""
    (run_dir,) = run_dirs(here)
    ending = f" (traceback in {run_dir.relative_to(here)}/run.log)\n"
    assert answer.code == case.code, answer.err
    assert answer.err.startswith(case.said) and answer.err.endswith(ending) and answer.err.count("\n") == 1, answer.err
    summary = json.loads((run_dir / "summary.json").read_text())
    assert (summary["state"], summary["exit_code"], summary["error"]) == (
        "failed",
        case.code,
        answer.err[: -len(ending)],
    )
    assert "Traceback (most recent call last)" in (run_dir / "run.log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join(case.words))
def test_data_that_cannot_be_read(case: Case, cli: Cli, tmp_path: Path, num_workers_left: Callable[..., int]) -> None:
    faulty.write_configs(tmp_path / "conf")
    check_failed(cli(*WORDS, *case.words), case, tmp_path)
    assert num_workers_left(is_collected=True) == 0


def test_there_are_so_many() -> None:
    assert len(CASES) == 22


@pytest.mark.slow
@pytest.mark.parametrize("case", [*dead_workers()], ids=lambda case: " ".join(case.words))
def test_a_killed_worker_leaves_no_other_behind(case: Case, tmp_path: Path) -> None:
    faulty.write_configs(tmp_path / "conf")
    process_id, answer = run_process(tmp_path, *WORDS, *case.words)
    check_failed(answer, case, tmp_path)
    assert is_group_gone(process_id)


ENDS: dict[str, tuple[tuple[str, ...], int]] = {
    "raise": (("callbacks.dying.how=raise",), 1),
    "interrupt_twice": (("callbacks.dying.how=interrupt_twice",), 130),
    "terminate": (("callbacks.dying.how=terminate",), 143),
    "terminate_group": (("callbacks.dying.how=terminate_group",), 143),
    "not_a_number": (("model.returns=not_a_number", "model.after=4"), 1),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "end"),
    [
        *[(kind, end) for kind in ("loader", "torch", "stream") for end in ("interrupt_twice", "terminate_group")],
        *[("own", end) for end in ENDS],
    ],
)
def test_no_worker_outlives_a_run(kind: str, end: str, tmp_path: Path) -> None:
    """However it ends; those that a dataloader of torch's keeps from one pass to the next, too."""
    faulty.write_configs(tmp_path / "conf")
    words, code = ENDS[end]
    workers = (f"data.kind={kind}", "data.num_workers=2", f"data.persistent_workers={str(kind != 'loader').lower()}")
    process_id, answer = run_process(
        tmp_path, *WORDS, "loop.eval_steps=2", "callbacks=[default,dying]", *words, *workers
    )
    assert answer.code == code, answer.err
    assert is_group_gone(process_id)
