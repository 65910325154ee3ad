"""The command ``loopwright``."""

from __future__ import annotations

import gc
import os
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from loopwright import __version__
from loopwright.errors import CheckpointError, SaveError, SettingError
from loopwright.experiment.console.command_line import CommandLine, read_command_line
from loopwright.experiment.console.help_text import help_text
from loopwright.experiment.console.messages import complain, one_line_of, tell
from loopwright.experiment.jobs.settings import at_config_path
from loopwright.shipped import conf_dir


def console() -> int:
    """The console command: `main`, with the garbage collector put off until there is something to train.

    What is imported and composed before makes no garbage worth a search, and the searches take a fifth of the time.
    """
    gc.disable()
    return main()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with ``argv``, by default the words typed after its name.

    Returns:
        The exit code: 0 done; 1 the run failed; 2 a wrong setting; 3 a bad checkpoint; 130 and 143 after SIGINT and
        SIGTERM.
    """
    _open_closed_streams()
    try:
        leave_current_directory()
    except FileNotFoundError:
        complain("the current directory is gone; change to another.")
        return 2
    try:
        line = read_command_line(sys.argv[1:] if argv is None else argv)
        if _answer(line):
            return 0
        # Imported here, as it imports Hydra: help does not need it, and Hydra looks for plugins on sys.path.
        from loopwright.experiment.verbs.entry import execute

        return execute(line)
    except SettingError as error:
        complain(at_config_path(error))
        return 2
    except CheckpointError as error:
        complain(error)
        return 3
    except SaveError as error:
        complain(error)
        return 1
    except KeyboardInterrupt:
        complain("interrupted")
        return 130
    except Exception as error:  # from foreign code, such as a trusted class that is built for a check
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        complain(f"{one_line_of(error)} (HYDRA_FULL_ERROR=1 shows the traceback)")
        return 1


def _open_closed_streams() -> None:
    """Where the standard output or error was closed, let what is said there go nowhere."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  (open for good)


def leave_current_directory() -> None:
    """Take the current directory off ``sys.path``: modules that lie about in it are not to be imported.

    Hydra alone would import a folder ``hydra_plugins`` from it. Directories of installed packages stay, and so does
    the one that holds this package.
    """
    here = Path.cwd().resolve()
    paths = sysconfig.get_paths()
    kept = {Path(paths[name]).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    kept.add(Path(__file__).resolve().parent.parent)
    if here not in kept:
        sys.path[:] = [entry for entry in sys.path if Path(entry or os.curdir).resolve() != here]


def _answer(line: CommandLine) -> bool:
    """Print the version or the help, if the command line asks for it."""
    if line.action == "version":
        tell(f"loopwright {__version__}")
    elif line.action == "help":
        extra = [] if line.config_dir is None else [Path(line.config_dir)]
        tell(help_text([conf_dir(), *extra]).rstrip("\n"))
    return line.action in ("version", "help")
