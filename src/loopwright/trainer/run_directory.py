"""Functions that create the run directory of a trainer, and lock the directory during a fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from loopwright.checkpoint import steps_in
from loopwright.errors import SettingError
from loopwright.hooks import Logger
from loopwright.loggers.append_only import FileLogger
from loopwright.run_lock import hold


def make_run_dir(run_dir: Path) -> None:
    """Create the run directory if it does not exist.

    Raises:
        SettingError: if the directory cannot be created.
    """
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "this is a file" if isinstance(error, FileExistsError) else error.strerror or str(error)
        raise _refuse(run_dir, "a directory that exists or can be created", reason) from error


@contextmanager
def held_for_fit(run_dir: Path | None, loggers: Sequence[Logger], *, is_new: bool) -> Iterator[None]:
    """Lock the run directory during the context. If ``run_dir`` is None, do nothing.

    Args:
        run_dir: run directory of the trainer. A missing directory is created.
        loggers: loggers of the trainer.
        is_new: whether the fit begins a new run. In a new run, the files of the loggers must not contain metrics of
            another run.

    Raises:
        CheckpointError: if another process has locked the directory.
        SaveError: if no file can be written in the directory.
        SettingError: if the directory cannot be created, or contains metrics of another run.
    """
    if run_dir is None:
        yield
        return
    make_run_dir(run_dir)
    with hold(run_dir):
        if is_new:
            _refuse_other_metrics(run_dir, loggers)
        yield


def _refuse_other_metrics(run_dir: Path, loggers: Sequence[Logger]) -> None:
    """Refuse a log file with lines of another run, because the file would then contain lines of two runs."""
    found = [name for each in loggers if isinstance(each, FileLogger) and (name := each.other_run_file()) is not None]
    if found:
        resumption = 'resume the other run with fit(…, ckpt_path="last")'
        if not steps_in(run_dir):
            resumption = 'give Trainer(checkpoint=…), so that fit(…, ckpt_path="last") can resume the next run'
        expected = f"a directory without metrics of another run, found {found[0]}"
        raise _refuse(run_dir, expected, f"name a new directory, or {resumption}")


def _refuse(run_dir: Path, expected: str, remedy: str) -> SettingError:
    """Return an error with the whole path of the directory, which is not shortened."""
    return SettingError("run_dir", f"={str(run_dir)!r}: expected {expected}; {remedy}.")
