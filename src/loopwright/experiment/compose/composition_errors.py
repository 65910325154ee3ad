"""Functions that convert errors of Hydra and OmegaConf to one-line messages.

A message about an unknown key or option names a similar known key or option, if there is one.
"""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml
from hydra.core.override_parser.types import Override

from loopwright.errors import SettingError, did_you_mean, nearest
from loopwright.experiment.compose.overrides import parse_overrides
from loopwright.experiment.console.messages import joined, one_line

Groups = Mapping[str, Sequence[str]]
Contents = Callable[[str], Mapping[str, Mapping[str, Any]]]

_LISTED = ("callbacks", "loggers")  # groups that accept a list of options
_NOTHING = object()  # returned for a path that does not exist
# The only class of Loopwright that no shipped file names. For all other classes, the shipped files list all useful
# arguments, and messages do not suggest additional arguments.
_IN_OWN_FILES = "loopwright.models.Supervised"
_IS_TYPO = 0.75  # least similarity ratio of `difflib` at which a name is assumed to be a typing error


def composition_error(
    error: Exception,
    overrides: Sequence[str],
    groups: Groups,
    compose_options: Callable[[Sequence[str]], Mapping[str, Any] | None],
    contents_of: Contents,
) -> SettingError:
    """Return an error that explains why a composition failed with ``error``.

    Each override is checked separately, so the message names all wrong overrides. If every override is valid, a
    configuration file contains the error, and the result is Hydra's message on one line.

    Args:
        error: exception that Hydra raised.
        overrides: overrides as typed. All of them can be parsed.
        groups: names of the options of each configuration group.
        compose_options: function that composes a configuration with only the given overrides. It returns None if the
            composition fails.
        contents_of: function that returns the content of the file of each option in a group.
    """
    if isinstance(error, yaml.MarkedYAMLError):
        return SettingError(_yaml_place(error), f": {one_line(error.problem or 'cannot be read')}.")
    options: list[str] = []
    values: list[Override] = []
    problems: list[str] = []
    for override in parse_overrides(overrides):
        if override.is_sweep_override():
            problems.append(
                f"{override.input_line}: expected one value; "
                "use -m for a sweep, brackets for a list or quotes for a string."
            )
        elif override.key_or_group in groups or override.package is not None:
            fault = _option_problem(override, groups)
            (problems if fault else options).append(fault or str(override.input_line))
        elif override.key_or_group.startswith("hydra/"):
            problems.append(f"{override.input_line}: Hydra's own settings are fixed; remove this override.")
        else:
            values.append(override)
    known = compose_options(options)
    if known is not None:
        found = [_value_problem(override, known, groups, options, contents_of) for override in values]
        problems += [fault for fault in found if fault is not None]
    if problems:
        return SettingError(joined(problems), "")
    cause = error if error.__cause__ is None or str(error) else error.__cause__
    return SettingError("configuration", f": {_first_words(cause)}")


def unknown_key(key: str, config: Mapping[str, Any], groups: Groups | None = None) -> str:
    """Return a hint for a key that ``config`` does not contain.

    The hint is `` Did you mean …?`` with the most similar key. If no key is similar, the hint lists the names in the
    section of the key. If ``config`` contains the key, the hint is empty.
    """
    section: Any = config
    parts = key.split(".")
    for depth, part in enumerate(parts):
        if isinstance(section, Mapping) and part in section:
            section = section[part]
            continue
        prefix = ".".join(parts[:depth])
        names = [str(name) for name in section] if isinstance(section, Mapping) else []
        names = [name for name in names if not name.startswith("_") and name != "hydra"]
        near = nearest(part, names + ([] if prefix else list(groups or ())))
        if near is None and not prefix and depth + 1 < len(parts):  # the name was typed with an unknown section
            last = parts[-1]
            section_hint = unknown_key(last, config) if last not in config else f" Did you mean {last}?"
            if "Did you mean" in section_hint:
                return section_hint
        elsewhere = [path for path in _paths(config) if path.endswith(f".{key}") and not path.startswith("hydra.")]
        if len(elsewhere) == 1:  # the name was typed without its section
            return f" Did you mean {elsewhere[0]}?"
        if near is None:
            return _nearest_anywhere(key, config) or (f" Available: {', '.join(sorted(names))}." if names else "")
        return f" Did you mean {'.'.join([*parts[:depth], near, *parts[depth + 1 :]])}?"
    return ""


def _nearest_anywhere(key: str, config: Mapping[str, Any]) -> str:
    return did_you_mean(key, [each for each in _paths(config) if not each.startswith("hydra.") and "._" not in each])


def _paths(section: Any, prefix: str = "") -> list[str]:
    if not isinstance(section, Mapping):
        return []
    paths = []
    for name, value in section.items():
        path = f"{prefix}.{name}" if prefix else str(name)
        paths += [path, *_paths(value, path)]
    return paths


def _option_problem(override: Override, groups: Groups) -> str | None:
    group = override.key_or_group
    if override.package is not None:
        return f"{override.input_line}: packages cannot be chosen; use {group}=OPTION."
    if override.is_delete():
        return None
    if override.is_add() or override.is_force_add():
        return f"{override.input_line}: an option of {group} is chosen already; write {group}=OPTION without the plus."
    value = override.value()
    chosen = value if isinstance(value, list) else [value]
    available = groups[group]
    for option in chosen:
        if option is None:
            return f"{override.input_line}: expected an option; use ~{group} to remove {group}."
        if not isinstance(option, str) or option.removesuffix(".yaml") not in available:
            return (
                f"{override.input_line}: no such option. Available: {', '.join(available)}."
                f"{did_you_mean(str(option), available)}"
            )
    return None


def _value_problem(
    override: Override, known: Mapping[str, Any], groups: Groups, chosen: Sequence[str], contents_of: Contents
) -> str | None:
    key, line = override.key_or_group, override.input_line
    exists = _holds(known, key)
    if override.is_force_add():
        return None
    if override.is_add():
        return f"{line}: {key} exists already; write it without the plus." if exists else None
    if exists:
        return None
    hint = other_options(key, groups, chosen, contents_of)
    if not hint:
        hint = unknown_key(key, known, groups) + ("" if override.is_delete() else _as_argument(key, known))
    return f"{line}: {'no such key to remove' if override.is_delete() else 'no such key'}.{hint}"


def _as_argument(key: str, known: Mapping[str, Any]) -> str:
    """Return a hint about passing an argument that the file of an option lacks, or "" if the key is a typing error."""
    parent, _, name = key.rpartition(".")
    section = _section(known, parent)
    target = section.get("_target_") if isinstance(section, Mapping) else None
    if not isinstance(target, str) or (target.startswith("loopwright.") and target != _IN_OWN_FILES):
        return ""
    if difflib.get_close_matches(name, list(section), 1, _IS_TYPO):
        return ""
    return f" To pass an argument {name} to {target.rpartition('.')[2]}, type +{key}=…."


def other_options(key: str, groups: Groups, chosen: Sequence[str], contents_of: Contents) -> str:
    """Return a hint that names the options of a group that have ``key``, or "" if no option has the key.

    Args:
        key: path, such as ``data.path``, that does not exist with the chosen options.
        groups: names of the options of each configuration group.
        chosen: overrides that choose options.
        contents_of: function that returns the content of the file of each option in a group.
    """
    group, _, path = key.partition(".")
    if group not in groups or not path:
        return ""
    contents = contents_of(group)
    entry = path.split(".")[0]
    if group in _LISTED and entry in contents.get(entry, {}):  # the option `entry` adds an entry with this name
        typed = next((word for word in chosen if word.startswith(f"{group}=")), f"{group}=default")
        others = typed.partition("=")[2].strip("[]")
        return f" {shlex.quote(f'{group}=[{others},{entry}]')} adds {group}.{entry}."
    named = [f"{group}={option}" for option, values in contents.items() if _holds(values, path)]
    if not named:
        return ""
    *first, last = named
    return f" {', '.join(first)} and {last} have this key." if first else f" {last} has this key."


def _holds(config: Mapping[str, Any], key: str) -> bool:
    return _section(config, key) is not _NOTHING


def _section(config: Mapping[str, Any], key: str) -> Any:
    """Return the value at a path, or `_NOTHING` if there is no such path."""
    section: Any = config
    for part in key.split("."):
        if isinstance(section, Mapping) and part in section:
            section = section[part]
        elif isinstance(section, list) and part.isdigit() and int(part) < len(section):
            section = section[int(part)]
        else:
            return _NOTHING
    return section


def _yaml_place(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    return "configuration" if mark is None else f"{mark.name}, line {mark.line + 1}"


def _first_words(error: BaseException) -> str:
    """Return the message of a Hydra or OmegaConf error on one line. Omit the search path and OmegaConf's full key."""
    text = str(error).split("\nConfig search path:")[0].split("\n    full_key:")[0].strip()
    return one_line(text).rstrip(".") + "." if text else f"{type(error).__name__}."
