"""`supervise`: runs a command in a child process, and restarts the command if the process dies.

This module does not import torch. The supervisor carries out these steps::

    run the command as typed
    while the process died and another restart is allowed:
        run "resume" on the run directory, or the command as typed if there is no checkpoint
"""

from __future__ import annotations

import json
import re
import signal
import stat
from collections.abc import Sequence
from pathlib import Path

from loopwright.experiment.console.command_line import CommandLine, words_on
from loopwright.experiment.console.messages import complain
from loopwright.experiment.launch.child import INTERRUPTED, Child, death_of
from loopwright.experiment.launch.restarts import Restarts
from loopwright.records import read_summary
from loopwright.regular_files import read_regular

_MAX_MANIFEST_BYTES = 1 << 20
# Exit codes after which a run is not restarted: success (0), a wrong setting (2), a bad checkpoint (3), or an
# interruption by a signal.
_NOT_RESTARTED = (0, 2, 3, *INTERRUPTED.values())


def supervise(line: CommandLine, max_restarts: int, *, may_begin_again: bool) -> int:
    """Run a command in a child process, and restart the command if the process dies.

    Args:
        line: command line that trains or resumes a run.
        max_restarts: maximum number of restarts without a new checkpoint.
        may_begin_again: whether a run that died before its first checkpoint may start again in another directory.

    Returns:
        The exit code of the last process.
    """
    words: Sequence[str] = line.words
    directory = None if line.directory is None else Path(line.directory)
    restarts = Restarts(max_restarts, newest_step(directory))
    with Child() as child:
        while True:
            code, sent = child.run(words)
            directory = sent or directory
            has_ended = code in _NOT_RESTARTED and not _is_unfinished(code, directory)
            if has_ended or (child.received is not None and code >= 0):
                return code
            stopped_by = -code if child.received is None else child.received
            if stopped_by in INTERRUPTED:  # the process ended before it could print a message
                how = "ended by" if code == -stopped_by else f"{death_of(code)} after"
                complain(f"{directory or 'the run'}: {how} {signal.Signals(stopped_by).name}; not started again.")
                return INTERRUPTED[stopped_by]
            exit_code = max(code, 1)
            step = newest_step(directory)
            folders = {} if directory is None else _folders(directory)
            where = _where(step, has_folders=bool(folders))
            if not restarts.allow_another(step):
                complain(
                    f"{directory or 'the run'}: died {restarts.num_in_a_row} times in a row {where}; not started again "
                    f"(max_restarts={max_restarts}). Last: {_why(code, directory)}"
                )
                return exit_code
            count = f"restart {restarts.num_in_a_row} of {max_restarts} without a new checkpoint"
            if directory is not None and folders:  # "resume" chooses the newest valid checkpoint
                complain(f"{directory}: {death_of(code)} {where} and is resumed; {count}.")
                words = words if line.directory is not None else words_on("resume", directory, line.permissions)
            elif directory is None or may_begin_again:
                complain(f"{directory or 'the run'}: {death_of(code)} {where} and is started again; {count}.")
                directory = None
            else:
                complain(
                    f"{directory}: {death_of(code)} {where}; nothing to resume from. Start again in a new directory."
                )
                return exit_code


def newest_step(run_dir: Path | None) -> int | None:
    """Return the step of the newest checkpoint whose files have the sizes in the manifest, or None."""
    folders = {} if run_dir is None else _folders(run_dir)
    return max((step for step, folder in folders.items() if _is_of_full_size(folder)), default=None)


def _folders(run_dir: Path) -> dict[int, Path]:
    """Return the checkpoint folders of a run by step. A folder may contain an incomplete checkpoint."""
    found = [] if (run_dir / "checkpoints").is_symlink() else run_dir.glob("checkpoints/step_*")
    folders = [path for path in found if re.fullmatch(r"step_\d+", path.name) and stat.S_ISDIR(path.lstat().st_mode)]
    return {int(path.name[5:]): path for path in folders}


def _is_of_full_size(folder: Path) -> bool:
    """Return whether every file of a checkpoint has the size that the manifest of the checkpoint records.

    The command ``resume`` checks the contents of the files.
    """
    try:
        files = json.loads(read_regular(folder / "manifest.json", _MAX_MANIFEST_BYTES))["files"]
        return all((folder / name).lstat().st_size == record["num_bytes"] for name, record in files.items())
    except (OSError, ValueError, LookupError, TypeError, AttributeError):  # invalid manifest, or a missing file
        return False


def _is_unfinished(code: int, directory: Path | None) -> bool:
    """Return whether a process exited with code 0 before its run had ended."""
    return not code and directory is not None and read_summary(directory).get("state") == "running"


def _where(step: int | None, *, has_folders: bool) -> str:
    if step is not None:
        return f"after the checkpoint of step {step:,}"
    return f"before its first {'complete ' if has_folders else ''}checkpoint"


def _why(code: int, directory: Path | None) -> str:
    error = read_summary(directory).get("error") if code >= 0 and directory is not None else None
    return str(error) if error else f"{death_of(code)}."
