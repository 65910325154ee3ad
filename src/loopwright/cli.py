"""The entry point of the command ``loopwright``, which returns exit codes and prints error messages."""

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
from loopwright.experiment.console.command_line import CommandLine, read_command_line
from loopwright.experiment.console.help_text import help_text, verb_help
from loopwright.experiment.console.messages import complain, one_line_of, tell, warnings_on_one_line
from loopwright.experiment.gate.masking import masked_output
from loopwright.experiment.gate.project_file import with_config_dir
from loopwright.experiment.jobs.job_settings import at_config_path
from loopwright.shipped import conf_dir


def console() -> int:
    """Run `main` with the garbage collector disabled until training starts.

    While modules are imported and a configuration is composed, garbage collections would take a fifth of the time and
    find little garbage.
    """
    gc.disable()
    return main()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command ``loopwright`` with the arguments ``argv``.

    If ``argv`` is None, the arguments are the words that were typed after ``loopwright``.

    Returns:
        Exit code: 0 if the command completed; 1 if the run failed; 2 if a setting is wrong; 3 if a checkpoint is
        missing, is damaged or does not fit; 130 after SIGINT; 143 after SIGTERM.
    """
    _open_closed_streams()
    with warnings_on_one_line(), ExitStack() as stack:
        return _main(argv, stack)


def _main(argv: Sequence[str] | None, stack: ExitStack) -> int:
    try:
        leave_current_directory()
    except FileNotFoundError:
        complain("the current directory no longer exists; change to another.")
        return 2
    try:
        line = read_command_line(sys.argv[1:] if argv is None else argv)
        stack.enter_context(masked_output(line.allow_env))  # also masks the messages of errors below
        if _answer(line):
            return 0
        _ignore_matplotlibrc()
        # `entry` imports Hydra. It is imported here because help does not need Hydra, and because Hydra must not look
        # for plugins before the current directory is removed from sys.path.
        from loopwright.experiment.verbs.entry import execute

        return execute(line)
    except SettingError as error:
        if error.__cause__ is not None and os.environ.get("HYDRA_FULL_ERROR") == "1":
            traceback.print_exception(error.__cause__)
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
    """Replace each of stdout and stderr by the null device if it was closed before this process started."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  (stays open until the process ends)


def leave_current_directory() -> None:
    """Remove the current directory from ``sys.path``, so that its modules are not imported by accident.

    Hydra, for example, would import a folder ``hydra_plugins``. The directory stays on ``sys.path`` if packages are
    installed in it, or if it contains this package.
    """
    here = Path.cwd().resolve()
    paths = sysconfig.get_paths()
    kept = {Path(paths[name]).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    kept.add(Path(__file__).resolve().parent.parent)
    if here not in kept:
        sys.path[:] = [entry for entry in sys.path if Path(entry or os.curdir).resolve() != here]


def _ignore_matplotlibrc() -> None:
    """Import matplotlib in another directory if the current directory contains a ``matplotlibrc``.

    Matplotlib reads this file when it is imported, and the file can make it run ``latex``. Other packages, such as
    torchmetrics, import matplotlib too. No other thread runs yet, so the directory can be changed.
    """
    if os.path.lexists("matplotlibrc"):
        with chdir(Path(__file__).parent):
            import matplotlib  # noqa: F401  (takes 0.2 s, which other commands do not need)


def _answer(line: CommandLine) -> bool:
    """Print the version or the help if the command line asks for either, and return whether it does."""
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
