"""`run_apart`: runs a new sweep whose jobs have processes of their own, without torch in this process.

The jobs are composed and checked in a child process, because these checks need torch. The child process writes the
directory of the sweep and ends. This process then continues the sweep as ``sweep resume`` does.
"""

from __future__ import annotations

import signal
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile

from loopwright.experiment.console.command_line import CommandLine
from loopwright.experiment.console.messages import complain
from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.launch.child import INTERRUPTED, Child, death_of
from loopwright.experiment.launch.job_process import start_server
from loopwright.experiment.sweep.carry_on import carry_on
from loopwright.experiment.sweep.index_file import read_index
from loopwright.experiment.sweep.read_sweep import recorded_sweep
from loopwright.terminal_text import encodable


def run_apart(line: CommandLine, trust: Trust) -> int:
    """Compose and check all jobs in a child process, run them, and return the exit code.

    The child process prints the errors of wrong settings, and its exit code is returned.

    Raises:
        CheckpointError: if the index of the sweep cannot be read.
    """
    start_server()  # imports torch for the processes of the jobs while the child process checks the jobs
    code, directory = _prepare(line)
    if directory is None:
        return code
    index = replace(read_index(directory), state="running")
    return carry_on(directory, index, recorded_sweep(index), trust)


def _prepare(line: CommandLine) -> tuple[int, Path | None]:
    """Write the directory of the sweep in a child process.

    Returns:
        The exit code, and the directory; None if the sweep cannot begin.
    """
    with TemporaryFile("w+", errors="replace") as errors:
        with Child() as child:
            code, directory = child.run(line.words, errors)
        if child.received is not None:
            if child.received == signal.SIGINT:
                complain("interrupted")
            return INTERRUPTED[child.received], None
        errors.seek(0)
        print(encodable(errors.read(), sys.stderr.encoding), end="", file=sys.stderr, flush=True)
    if code < 0:
        complain(f"the process that checks the jobs {death_of(code)}.")
    return (code, directory) if code == 0 else (max(code, 1), None)
