"""Commands whose data cannot be read: one line names the error, no process remains, and the run is recorded as failed.

`errors.txt` contains the exact lines of some cases. Here each kind of error is tested with each kind of dataloader, in
the main process and in workers.
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
    """Overrides, the beginning of the expected line, and the exit code."""

    words: tuple[str, ...]
    message: str
    code: int = 1


def broken_rows() -> Iterator[Case]:
    """Yield a case for one row of each kind of dataloader, in the main process and in a worker."""
    for kind in ("loader", "torch", "own"):
        for num_workers in (0, 2):
            words = (f"data.kind={kind}", "data.fault=raises", "data.row=6", f"data.num_workers={num_workers}")
            here = " (worker 1)" if num_workers else ""
            message = f"DataError: Rows: sample 6 cannot be read{here}: KeyError: 'no such row'"
            if kind == "own":  # the trainer does not wrap it, so the message names only the batch
                worker = "Caught KeyError in DataLoader worker process 1. KeyError: " if num_workers else ""
                where = "Raised by the training dataloader at micro-batch 1 of pass 0."
                message = f"KeyError: {worker}'no such row'. {where}"
            yield Case(words, message)


def ragged_rows() -> Iterator[Case]:
    for kind in ("loader", "torch"):
        for num_workers, where in ((0, ""), (2, " (worker 1)")):
            words = (f"data.kind={kind}", "data.fault=ragged", f"data.num_workers={num_workers}")
            yield Case(words, f"DataError: Rows: samples 4, 5, 6, 7 cannot be collated{where}: ")


def dead_workers() -> Iterator[Case]:
    for kind in ("loader", "torch", "own"):
        words = (f"data.kind={kind}", "data.fault=kills", "data.num_workers=2")
        yield Case(words, "DataError: A worker process of a dataloader died, possibly because memory ran out. ")


def wrong_lengths() -> Iterator[Case]:
    for num_workers, where in ((0, ""), (2, " (worker 0)")):
        words = ("data.fault=lies", f"data.num_workers={num_workers}")
        yield Case(words, f"DataError: Rows: sample 10 cannot be read{where}: IndexError: list index out of range")
    for name, length, message in (
        ("length", 5, "The training dataloader ended after 4 micro-batches of pass 0; its length is 5."),
        ("length", 3, "The training dataloader has more than 3 micro-batches in pass 0; its length is 3."),
        ("val_length", 5, "val: the dataloader ended after 4 of the 5 batches of its length."),
        ("val_length", 3, "val: the dataloader has more than the 3 batches of its length."),
    ):
        yield Case(("data.kind=batches", f"data.{name}={length}", "loop.max_steps=5"), f"DataError: {message}")
    empty = ("data.kind=stream", "data.num_train=0", "data.has_val=false")
    yield Case(empty, "DataError: The training dataloader is empty in pass 0: expected at least one micro-batch")


CASES = [*broken_rows(), *ragged_rows(), *dead_workers(), *wrong_lengths()]


def check_failed(answer: Answer, case: Case, here: Path) -> None:
    """Check that stderr has one line, and that the run directory records the failure and the traceback."""
    (run_dir,) = run_dirs(here)
    ending = f" (traceback in {run_dir.relative_to(here)}/run.log)\n"
    assert answer.code == case.code, answer.err
    assert answer.err.startswith(case.message) and answer.err.endswith(ending) and answer.err.count("\n") == 1, (
        answer.err
    )
    summary = json.loads((run_dir / "summary.json").read_text())
    assert (summary["state"], summary["exit_code"], summary["error"]) == (
        "failed",
        case.code,
        answer.err[: -len(ending)],
    )
    assert "Traceback (most recent call last)" in (run_dir / "run.log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join(case.words))
def test_a_data_error_is_reported_in_one_line(
    case: Case, cli: Cli, tmp_path: Path, num_workers_left: Callable[..., int]
) -> None:
    faulty.write_configs(tmp_path / "conf")
    check_failed(cli(*WORDS, *case.words), case, tmp_path)
    assert num_workers_left(is_collected=True) == 0


def test_the_number_of_cases() -> None:
    assert len(CASES) == 20


@pytest.mark.slow
@pytest.mark.parametrize("case", [*dead_workers()], ids=lambda case: " ".join(case.words))
def test_no_process_remains_after_a_worker_was_killed(case: Case, tmp_path: Path) -> None:
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
    """Persistent workers of torch's dataloader end, too."""
    faulty.write_configs(tmp_path / "conf")
    words, code = ENDS[end]
    workers = (f"data.kind={kind}", "data.num_workers=2", f"data.persistent_workers={str(kind != 'loader').lower()}")
    process_id, answer = run_process(
        tmp_path, *WORDS, "loop.eval_steps=2", "callbacks=[default,dying]", *words, *workers
    )
    assert answer.code == code, answer.err
    assert is_group_gone(process_id)
