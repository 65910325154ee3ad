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
    """Yield a case for the first, a middle and the last row of each kind of dataloader, without and with workers."""
    for kind in ("loader", "torch", "own"):
        for row in (0, 6, 15):
            for num_workers in (0, 2) if kind != "own" or row == 6 else (0,):
                words = (f"data.kind={kind}", "data.fault=raises", f"data.row={row}", f"data.num_workers={num_workers}")
                batch = row // 4
                here = f" (worker {batch % 2})" if num_workers else ""
                message = f"DataError: Rows: sample {row} cannot be read{here}: KeyError: 'no such row'"
                if kind == "own":  # used as it is: only the batch is known
                    worker = (
                        f"Caught KeyError in DataLoader worker process {batch % 2}. KeyError: " if num_workers else ""
                    )
                    where = f"Raised by the training dataloader at micro-batch {batch} of pass 0."
                    message = f"KeyError: {worker}'no such row'. {where}"
                yield Case(words, message)


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


@pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join(case.words))
def test_a_data_error_is_reported_in_one_line(
    case: Case, cli: Cli, tmp_path: Path, num_workers_left: Callable[..., int]
) -> None:
    faulty.write_configs(tmp_path / "conf")
    check_failed(cli(*WORDS, *case.words), case, tmp_path)
    assert num_workers_left(is_collected=True) == 0


def test_the_number_of_cases() -> None:
    assert len(CASES) == 30


@pytest.mark.slow
@pytest.mark.parametrize("case", [*dead_workers()], ids=lambda case: " ".join(case.words))
def test_no_process_remains_after_a_worker_was_killed(case: Case, tmp_path: Path) -> None:
    faulty.write_configs(tmp_path / "conf")
    process_id, answer = run_process(tmp_path, *WORDS, *case.words)
    check_failed(answer, case, tmp_path)
    assert is_group_gone(process_id)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["loader", "torch", "own", "stream"])
@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("callbacks.dying.how=raise",), 1),
        (("callbacks.dying.how=interrupt_twice",), 130),
        (("callbacks.dying.how=terminate",), 143),
        (("callbacks.dying.how=terminate_group",), 143),
        (("model.returns=not_a_number", "model.after=4"), 1),
    ],
    ids=["raise", "interrupt_twice", "terminate", "terminate_group", "not_a_number"],
)
def test_no_worker_outlives_a_run(words: tuple[str, ...], code: int, kind: str, tmp_path: Path) -> None:
    """Persistent workers of torch's dataloader end, too."""
    faulty.write_configs(tmp_path / "conf")
    workers = (f"data.kind={kind}", "data.num_workers=2", f"data.persistent_workers={str(kind != 'loader').lower()}")
    process_id, answer = run_process(
        tmp_path, *WORDS, "loop.eval_steps=2", "callbacks=[default,dying]", *words, *workers
    )
    assert answer.code == code, answer.err
    assert is_group_gone(process_id)
