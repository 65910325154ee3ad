"""`main` and `console`, the entry points of the command ``loopwright``. They print errors and return exit codes."""

from __future__ import annotations

import gc
import os
import sys
import sysconfig
import traceback
from collections.abc import Sequence
from contextlib import ExitStack, chdir
from pathlib import Path

from loopwright import __version__
from loopwright.errors import CheckpointError, SaveError, SettingError
from loopwright.experiment.console.command_line import COMPOSING_VERBS, CommandLine, read_command_line
from loopwright.experiment.console.help_text import help_text, verb_help
from loopwright.experiment.console.messages import complain, one_line_of, tell, warnings_on_one_line
from loopwright.experiment.console.reading_verbs import READING_VERBS
from loopwright.experiment.gate.masking import masked_output
from loopwright.experiment.gate.project_file import with_config_dir
from loopwright.experiment.verbs.reading import execute_reading
from loopwright.shipped import conf_dir


def console() -> int:
    """Run `main` with the garbage collector disabled until training starts.

    During imports and the composition of a configuration, garbage collections would take a fifth of the time and free
    little memory.
    """
    gc.disable()
    code = main()
    if "torch" not in sys.modules:
        # Python collects garbage when it exits, which takes 15 ms. No object of a command without torch needs it.
        gc.freeze()
    return code


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command ``loopwright``.

    Args:
        argv: command-line arguments after ``loopwright``; None selects the arguments of this process.

    Returns:
        Exit code: 0 if the command completed; 1 if the run failed; 2 if a setting is wrong; 3 if a checkpoint is
        missing, damaged, or incompatible with the run; 130 after SIGINT; 143 after SIGTERM.
    """
    _open_closed_streams()
    with warnings_on_one_line(), ExitStack() as stack:
        return _main(argv, stack)


def _main(argv: Sequence[str] | None, stack: ExitStack) -> int:
    try:
        leave_current_directory()
    except FileNotFoundError:
        complain("the current directory no longer exists; change to another directory.")
        return 2
    try:
        line = read_command_line(sys.argv[1:] if argv is None else argv)
        stack.enter_context(masked_output(line.allow_env))  # also masks values in the errors printed below
        if _answer(line):
            return 0
        if line.verb in READING_VERBS:
            return execute_reading(line)
        if line.verb in COMPOSING_VERBS:
            from loopwright.experiment.verbs.composing_entry import execute_composing

            return execute_composing(line)
        _ignore_matplotlibrc()
        # Importing `entry` imports Hydra, and Hydra imports its plugins. Therefore, the import must follow the removal
        # of the current directory from sys.path. The import also follows the help, which does not need Hydra.
        from loopwright.experiment.verbs.entry import execute

        return execute(line)
    except SettingError as error:
        if error.__cause__ is not None and os.environ.get("HYDRA_FULL_ERROR") == "1":
            traceback.print_exception(error.__cause__)
        from loopwright.experiment.jobs.job_settings import at_config_path

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
    except Exception as error:  # for example, raised by the constructor of a trusted class
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        complain(f"{one_line_of(error)} (HYDRA_FULL_ERROR=1 shows the traceback)")
        return 1


def _open_closed_streams() -> None:
    """Replace stdout and stderr by the null device if they were closed before this process started."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  (stays open until the process ends)


def leave_current_directory() -> None:
    """Remove the current directory from ``sys.path``, because its modules must not be imported by accident.

    For example, Hydra would import a package ``hydra_plugins`` from the current directory. The directory is not removed
    if it contains Loopwright or is a directory of installed packages.
    """
    here = Path.cwd().resolve()
    paths = sysconfig.get_paths()
    kept = {Path(paths[name]).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    kept.add(Path(__file__).resolve().parent.parent)
    if here not in kept:
        sys.path[:] = [entry for entry in sys.path if Path(entry or os.curdir).resolve() != here]


def _ignore_matplotlibrc() -> None:
    """Import matplotlib in another directory if the current directory contains a ``matplotlibrc``.

    Matplotlib reads this file when it is imported. A setting in the file can make matplotlib run ``latex``. Packages
    such as torchmetrics also import matplotlib, so the first import must not find the file. No second thread runs yet,
    so changing the directory affects no other code.
    """
    if os.path.lexists("matplotlibrc"):
        with chdir(Path(__file__).parent):
            import matplotlib  # noqa: F401  (takes 0.2 s, so it is only imported if there is such a file)


def _answer(line: CommandLine) -> bool:
    """Print the version or the help if the command line requests it. Return whether a text was printed."""
    if line.action == "version":
        tell(f"loopwright {__version__}")
    elif line.action == "help":
        if line.verb is not None:
            tell(verb_help(line.verb).rstrip("\n"))
            return True
        config_dir = with_config_dir(line, Path.cwd()).config_dir
        extra = [] if config_dir is None else [Path(config_dir)]
        tell(help_text([conf_dir(), *extra]).rstrip("\n"))
    return line.action in ("version", "help")
