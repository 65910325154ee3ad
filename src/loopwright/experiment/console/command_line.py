"""Functions that parse the words after ``loopwright``: a command, overrides and flags.

Abbreviated flags are refused, and Hydra receives the full names of its flags. Hydra therefore receives only words that
this module has parsed. This module imports neither torch nor Hydra, because ``--help`` must not import torch.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Literal

from loopwright.errors import SettingError, did_you_mean, refuse
from loopwright.experiment.console.flag_parser import flag_parser
from loopwright.experiment.console.reading_verbs import READING_VERBS, split_reading_words

VERBS = {
    "plan": "print the steps of a run without training; with -m, a table of the jobs",
    "verify": "verify WHAT: compare two short runs, such as verify resume or verify ranks",
    "config": "print the composed and resolved configuration; with origins=true, what sets each value",
    "explain": "explain KEY: print the meaning, the type, the default and the origin of a setting",
    "resume": "resume DIR: continue an interrupted run; with loop.max_steps=N, train to step N",
    "validate": "validate DIR: validate the newest checkpoint of a run with its recorded configuration",
    "predict": "predict DIR: write predictions to a CSV file, for new data with data.path=new.csv; option: output=FILE",
    "reproduce": "reproduce DIR: repeat a run in a new directory; report differences in its setup and its numbers",
    "export": "export DIR: write the weights of a run to a safetensors file; options: output=FILE, weights=averaged",
    "sweep": "sweep WHAT DIR: show, resume, retry, add to or stop a sweep, such as sweep show last",
    "import-weights": "import-weights FILE: convert a torch.save file for init_from; options: output=DIR, key=NAME",
    **{verb: known.meaning for verb, known in READING_VERBS.items()},
}

COMPOSING_VERBS = ("config", "explain")  # commands that only compose a configuration; they import no torch

SWEEP_VERBS = ("show", "resume", "retry", "add", "stop", "job")

VERIFIABLE = ("resume", "accumulation", "validation", "workers", "determinism", "ranks")

WITH_PATH = {
    **dict.fromkeys(("resume", "validate", "predict", "reproduce", "export", "sweep"), "DIR"),
    "import-weights": "FILE",
}

FLAGS = (
    "--allow-env",
    "--cfg",
    "--config-dir",
    "--help",
    "--hydra-help",
    "--info",
    "--multirun",
    "--trust",
    "--version",
)

Action = Literal["run", "help", "version", "hydra_help", "completion", "cfg", "info"]

_TRAINS = "to train, give no command: loopwright, or loopwright loop.max_steps=500"
_NOT_VERBS = {
    **dict.fromkeys(("fit", "run", "start", "train"), _TRAINS),
    "help": "use loopwright --help",
    "version": "use loopwright --version",
}
_NOT_TO_BE_SET = {
    "hydra": "set a single value, such as hydra.run.dir=DIR",
    "hydra.searchpath": "add a directory of configuration files with --config-dir DIR",
    "hydra.sweep.subdir": "the directories of the jobs are numbered",
    "hydra.mode": "use -m for a sweep",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandLine:
    """A parsed command line.

    Args:
        words: all words after ``loopwright``, as typed.
        action: requested action. Only the action "run" can run a job. All other actions print information.
        verb: command such as ``plan``; None if no command is given.
        directory: path of the run directory or file of a command such as ``resume``; None for other commands.
        directories: directories of a command that only reads, such as ``show``, as typed.
        what: property that ``verify`` checks, such as ``resume``, what ``sweep`` does, such as ``show``, or the setting
            that ``explain`` explains; None for other commands.
        overrides: overrides in Hydra's grammar, such as ``key=value``. If the command only reads, its options.
        trust: values of ``--trust``.
        allow_env: values of ``--allow-env``.
        multirun: whether the flag ``-m`` for a sweep is given.
        config_dir: value of ``--config-dir``; None if the flag is not given.
        hydra_flags: other flags for Hydra, with their full names.
    """

    words: tuple[str, ...]
    action: Action
    verb: str | None
    directory: str | None
    directories: tuple[str, ...]
    what: str | None
    overrides: tuple[str, ...]
    trust: tuple[str, ...]
    allow_env: tuple[str, ...]
    multirun: bool
    config_dir: str | None
    hydra_flags: tuple[str, ...]

    @property
    def config_dir_flag(self) -> list[str]:
        """``--config-dir`` as a list of words for Hydra; empty if the flag was not given."""
        return [] if self.config_dir is None else [f"--config-dir={self.config_dir}"]

    @property
    def permissions(self) -> list[str]:
        """The flags ``--trust`` and ``--allow-env`` as typed."""
        return permission_flags(self.trust, self.allow_env)


def permission_flags(trust: Sequence[str], allow_env: Sequence[str]) -> list[str]:
    """Return the flags ``--trust`` and ``--allow-env`` for these packages and environment variables."""
    return [*(f"--trust={name}" for name in trust), *(f"--allow-env={name}" for name in allow_env)]


def is_variable_name(name: str) -> bool:
    """Return whether ``name`` consists of ASCII letters, digits and underscores, and does not begin with a digit."""
    return re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) is not None


def read_command_line(words: Sequence[str]) -> CommandLine:
    """Parse the words of a command line.

    Raises:
        SettingError: for unknown commands and flags, for words that are not overrides, and for flags that cannot be
            combined. ``--experimental-rerun``, ``--config-name``, ``--config-path`` and ``hydra.searchpath`` are always
            refused.
    """
    flags = flag_parser().parse_intermixed_args(list(words))
    action = _action(flags)
    verb, directory, what, overrides = None, None, None, list(flags.overrides)
    directories: tuple[str, ...] = ()
    if overrides and action != "completion" and not _is_override(overrides[0]):
        verb = _check_verb(overrides.pop(0))
        if verb == "sweep" and action == "run":
            what = _take_sweep_verb(overrides)
        if verb in WITH_PATH and action == "run":
            if not overrides or (_is_override(overrides[0]) and not _is_path(overrides[0])):
                kind = "a sweep" if what else "a run directory" if WITH_PATH[verb] == "DIR" else "a file"
                words_so_far = f"{verb} {what}" if what else verb
                problem = f": expected {kind}; use loopwright {words_so_far} {WITH_PATH[verb]}."
                raise SettingError(words_so_far, problem)
            directory = overrides.pop(0)
            if what == "job":
                overrides = [f"number={word}" for word in overrides[:1]] + overrides[1:]
        if verb == "verify" and action == "run":
            what = _take_what(overrides)
        if verb == "explain" and action == "run":
            what = _take_key(overrides)
    if verb is not None and action not in ("run", "help", "version"):
        raise SettingError(f"--{action.replace('_', '-')}", f": cannot be used with the command {verb}.")
    without_sweep = (*COMPOSING_VERBS, "verify", *WITH_PATH, *READING_VERBS)
    if flags.multirun and (action in ("cfg", "info") or verb in without_sweep):
        raise SettingError("--multirun", f": cannot be used with {verb or '--' + action}.")
    if action == "completion" and not any(re.fullmatch(r"(install|uninstall|query)=\w+", word) for word in overrides):
        raise SettingError("--shell-completion", ": expected install=SHELL, uninstall=SHELL or query=SHELL.")
    if verb is not None and verb in READING_VERBS and action == "run":
        directories, overrides = split_reading_words(verb, overrides)
    elif action not in ("completion", "help"):
        overrides = [_with_quotes(word) for word in overrides]
        _check_split_list(overrides)
        for word in overrides:
            _check_override(word, flags.multirun)
    return CommandLine(
        words=tuple(words),
        action=action,
        verb=verb,
        directory=directory,
        directories=directories,
        what=what,
        overrides=tuple(overrides),
        trust=tuple(flags.trust),
        allow_env=_variable_names(flags.allow_env),
        multirun=flags.multirun,
        config_dir=flags.config_dir,
        hydra_flags=_hydra_flags(flags, action),
    )


def _take_sweep_verb(words: list[str]) -> str:
    """Remove the word after ``sweep`` from the list, and return it."""
    shown = ", ".join(SWEEP_VERBS[:-1])
    if not words or _is_override(words[0]):
        raise SettingError(
            "sweep",
            f": expected one of {shown}, and a sweep, such as loopwright sweep show last; to run a sweep, use "
            "loopwright -m with values separated by commas, such as loopwright -m optimizer.lr=0.001,0.01.",
        )
    if words[0] not in SWEEP_VERBS:
        raise SettingError(f"sweep {words[0]}", f": expected one of {shown}.{did_you_mean(words[0], SWEEP_VERBS)}")
    return words.pop(0)


def _variable_names(names: Sequence[str]) -> tuple[str, ...]:
    """Check the values of ``--allow-env``."""
    for name in names:
        if not is_variable_name(name):  # the user may have typed NAME=VALUE; the message must not show the value
            shown = name.partition("=")[0]
            raise refuse("--allow-env", shown, "the name of an environment variable, without its value")
    return tuple(dict.fromkeys(names))


def _with_quotes(word: str) -> str:
    """Quote a comma or semicolon, as in ``data.delimiter=;``. Hydra cannot parse these values without quotes."""
    return f'{word[:-1]}"{word[-1]}"' if word.endswith(("=;", "=,")) else word


def _action(flags: argparse.Namespace) -> Action:
    asked: list[Action] = []
    if flags.cfg is not None:
        asked.append("cfg")
    if flags.info is not None:
        asked.append("info")
    if flags.shell_completion:
        asked.append("completion")
    if flags.hydra_help:
        asked.append("hydra_help")
    if flags.help:
        return "help"
    if flags.version:
        return "version"
    if len(asked) > 1:
        raise SettingError("--" + asked[1].replace("_", "-"), f": cannot be used with --{asked[0].replace('_', '-')}.")
    if (flags.resolve or flags.package is not None) and asked != ["cfg"]:
        raise SettingError("--resolve" if flags.resolve else "--package", ": can only be used with --cfg.")
    return asked[0] if asked else "run"


def _hydra_flags(flags: argparse.Namespace, action: Action) -> tuple[str, ...]:
    if action == "cfg":
        package = [] if flags.package is None else [f"--package={flags.package}"]
        return (f"--cfg={flags.cfg}", *package, *(["--resolve"] if flags.resolve else []))
    if action == "info":
        return (f"--info={flags.info}",)
    if action == "completion":
        return ("--shell-completion",)
    if action == "hydra_help":
        return ("--hydra-help",)
    return ()


def _is_override(word: str) -> bool:
    """Return whether a word is an override. A word that begins with ``/``, ``./`` or ``../`` is a path."""
    return ("=" in word or word.startswith(("+", "~"))) and not word.startswith(("/", "./", "../"))


def _check_verb(word: str) -> str:
    if word in VERBS:
        return word
    remedy = _NOT_VERBS.get(word)
    if remedy is not None:
        raise SettingError(word, f": no such command; {remedy}.")
    raise SettingError(
        word,
        f": no such command. Available: {', '.join(sorted(VERBS))}; an override has the form key=value."
        f"{did_you_mean(word, VERBS)}",
    )


def _take_what(words: list[str]) -> str:
    known = ", ".join(VERIFIABLE)
    if not words or _is_override(words[0]):
        raise SettingError("verify", f": expected one of {known}; for example loopwright verify resume.")
    what = words.pop(0)
    if what not in VERIFIABLE:
        raise SettingError(f"verify {what}", f": expected one of {known}.{did_you_mean(what, VERIFIABLE)}")
    return what


def _take_key(words: list[str]) -> str:
    """Remove the key after ``explain`` from the list, and return it."""
    if not words:
        example = "use loopwright explain loop.eval_frequency, or loopwright explain model"
        raise SettingError("explain", f": expected a setting; {example}.")
    key, is_override, _ = words[0].partition("=")
    if is_override or words[0].startswith(("+", "~")):
        name = key.lstrip("+~") or "KEY"
        raise SettingError(words[0], f": expected a setting; use loopwright explain {shell_line([name, *words])}.")
    return words.pop(0)


def _check_split_list(words: Sequence[str]) -> None:
    """Refuse a list or mapping that the shell has split at a space. The message contains the quoted override."""
    for index, word in enumerate(words):
        if not any(word.count(left) > word.count(right) for left, right in ("[]", "{}")):
            continue
        rest = list(takewhile(lambda other: not _is_override(other), words[index + 1 :]))
        if rest:
            whole = re.sub(r"([,:]) ", r"\1", " ".join([word, *rest]))
            raise SettingError(word, f": a shell splits words at spaces; use {shell_line([whole])}.")


def _check_override(word: str, multirun: bool) -> None:
    if word in VERBS:
        raise SettingError(word, f": a command comes before the overrides: loopwright {word} …")
    if not _is_override(word):
        raise SettingError(word, ": expected an override of the form key=value.")
    key = word.lstrip("+~").partition("=")[0].partition("@")[0].strip()
    if key in _NOT_TO_BE_SET or key.startswith("hydra.searchpath."):
        raise SettingError(word, f": refused; {_NOT_TO_BE_SET.get(key, _NOT_TO_BE_SET['hydra.searchpath'])}.")
    if key.startswith("hydra.run.") and multirun:
        raise SettingError(word, ": has no effect in a sweep; use hydra.sweep.dir=DIR.")
    if key.startswith("hydra.sweep.") and not multirun:
        raise SettingError(word, ": has an effect only in a sweep (-m); use hydra.run.dir=DIR.")


def _is_path(word: str) -> bool:
    """Return whether a word is an existing path, or an existing directory followed by ``/best`` or ``/last``."""
    head, _, name = word.rpartition("/")
    return os.path.lexists(word) or (name in ("best", "last") and os.path.isdir(head))


def command_on(verb: str, directory: Path, permissions: Sequence[str] = (), *overrides: str) -> str:
    """Return the shell command that applies a verb to a run directory.

    The arguments are described in `words_on`. ``overrides`` are appended to the command.
    """
    return shell_line(["loopwright", *words_on(verb, directory, permissions), *overrides])


def words_on(verb: str, directory: Path, permissions: Sequence[str]) -> list[str]:
    """Return the words of a command on a run directory.

    Args:
        verb: command, such as ``validate``.
        directory: run directory. A path that looks like a flag or an override gets the prefix ``./``.
        permissions: flags returned by `permission_flags`.
    """
    shown = str(directory)
    is_ambiguous = shown.startswith("-") or _is_override(shown)
    return [verb, *permissions, f"./{shown}" if is_ambiguous else shown]


def shell_line(words: Sequence[str]) -> str:
    """Quote words for a shell, and join them with spaces.

    Unprintable characters and repeated spaces are written as hexadecimal escapes in ``$'…'``, because messages would
    otherwise change these characters.
    """
    return " ".join(_shell_word(word) for word in words)


def _shell_word(word: str) -> str:
    if word.isprintable() and "  " not in word and word == word.strip():
        return shlex.quote(word)
    characters = []
    for place, char in enumerate(word):
        if char in "\\'":
            characters.append(f"\\{char}")
        elif not char.isprintable() or (char == " " and word[place - 1 : place] in ("", " ")) or word[place:] == char:
            characters.append("".join(f"\\x{byte:02x}" for byte in os.fsencode(char)))
        else:
            characters.append(char)
    return f"$'{''.join(characters)}'"
