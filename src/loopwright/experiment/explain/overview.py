"""`explain_section`, which lists the options of a group and the settings of a section."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from loopwright.errors import SettingError
from loopwright.experiment.compose.composer import Composer
from loopwright.experiment.compose.origins import Names
from loopwright.experiment.compose.yaml_marks import comment_of
from loopwright.experiment.console.command_line import shell_line
from loopwright.experiment.explain.explained import Explained, leaves, value_at
from loopwright.experiment.explain.explanation import argument_at, as_sentence, meaning_of, set_by, shown_value
from loopwright.experiment.explain.signatures import read_signature
from loopwright.experiment.gate.config_files import check_config_file
from loopwright.experiment.gate.hydra_tree import override_key
from loopwright.experiment.gate.tree import SPECIAL_KEYS, TARGET
from loopwright.shipped import conf_dir

_INCLUDED = re.compile(r"^\s*-\s+([\w/]+)\s*(?:#.*)?$")  # line of a defaults list that includes an option
_TARGET_LINE = re.compile(r"^\s*_target_:\s*([\w.]+)")
_LISTED = ("callbacks", "loggers")  # groups whose options can be combined


class Option(NamedTuple):
    """An option of a group: its name, its first comment, and whether the configuration contains it."""

    name: str
    meaning: str
    is_chosen: bool


class Key(NamedTuple):
    """A setting of a section: its path, its value, its meaning and its origin."""

    key: str
    value: str
    meaning: str
    set_by: str


class Overview(NamedTuple):
    """Options of a group, and settings of a section.

    Attributes:
        key: path of the section, or name of the group.
        chosen: chosen option; empty if the section is not a group.
        target: class or function of the section; empty if there is none.
        meaning: sentence that describes the section; empty if unknown.
        set_by: file and line, or override, that chooses the option; empty if unknown.
        options: options of the group.
        keys: settings of the section.
        change: override that chooses another option or changes a setting; empty if there is none.
    """

    key: str
    chosen: str
    target: str
    meaning: str
    set_by: str
    options: tuple[Option, ...]
    keys: tuple[Key, ...]
    change: str


def explain_section(config: Explained, path: Names, composer: Composer) -> Overview:
    """List the options and the settings of a group or section."""
    key, node = ".".join(path), value_at(config.values, path)
    names = composer.groups.get("/".join(path), ())
    target = node.get(TARGET) if isinstance(node, Mapping) else None
    signature = read_signature(target) if isinstance(target, str) else None
    options = _options("/".join(path), names, config, composer)
    keys = tuple(_keys(config, path, node)) if isinstance(node, Mapping) else ()
    chosen, chosen_by = _choice("/".join(path), config) if names else ("", "")
    return Overview(
        key=key,
        chosen=chosen,
        target=target if isinstance(target, str) else "",
        meaning=signature.summary if signature else as_sentence(config.origins.section_comment(path)),
        set_by=chosen_by,
        options=options,
        keys=keys,
        change=_change(key, chosen, [each.name for each in options if not each.is_chosen]),
    )


def _options(group: str, names: Sequence[str], config: Explained, composer: Composer) -> tuple[Option, ...]:
    used = {file.option for file in config.origins.files}
    found = []
    for name in names:
        files = [directory / group / f"{name}.yaml" for directory in composer.directories]
        meaning = next((_meaning(file) for file in files if file.is_file()), "")
        found.append(Option(name=name, meaning=meaning, is_chosen=f"{group}/{name}" in used))
    return tuple(found)


def _meaning(file: Path) -> str:
    """Return the first comment of the file of an option. A file that cannot be used has none; it need not be chosen."""
    try:
        text = file.read_text(encoding="utf-8") if file.is_relative_to(conf_dir()) else check_config_file(file)
    except SettingError:
        return ""
    return _first_comment(text)


def _first_comment(text: str) -> str:
    """Return the first line of the comment at the top of a file, else what is known of its ``_target_``.

    Lines that contain a command or a package are passed over.
    """
    lines = text.splitlines()
    for line in lines:
        comment = line.strip().removeprefix("#").strip()
        if line.strip() and not line.strip().startswith("#"):
            break
        if comment and not comment.startswith(("@package", "loopwright ", "---")):
            return as_sentence(comment)
    for line in lines:
        match = _TARGET_LINE.match(line)
        if match:
            signature = read_signature(match[1])
            return as_sentence(comment_of(line) if signature is None else signature.summary)
    included = [match[1] for match in map(_INCLUDED.match, lines) if match]
    return as_sentence(", ".join(included))


def _keys(config: Explained, path: Names, node: Mapping[str, object]) -> list[Key]:
    found = []
    for names, value in leaves(node, path):
        if names[-1] in SPECIAL_KEYS and len(names) == len(path) + 1:
            continue
        signature, argument = argument_at(config, names)
        found.append(
            Key(
                key=".".join(names),
                value=shown_value(value),
                meaning=meaning_of(config.origins.writers(names), argument, signature, names, value),
                set_by=set_by(config, names),
            )
        )
    return found


def _choice(group: str, config: Explained) -> tuple[str, str]:
    """Return the chosen option of a group, and the override or the line of a defaults list that chooses it.

    Hydra does not record the choice of several options, such as ``callbacks=[default,ema]``. Then the last list of
    options that are all used is returned.
    """
    recorded = config.choices.get(group)
    typed = next((word for word in config.overrides if override_key(word) == group), None)
    if typed is not None:
        return str(recorded or typed.partition("=")[2]), typed
    used = {file.option for file in config.origins.files}
    found = ("" if recorded is None else str(recorded), "")
    for file in config.origins.files:
        for each in file.choices:
            names = each.option.strip("[]").replace(" ", "").split(",")
            is_chosen = each.option == recorded if recorded else used.issuperset(f"{group}/{name}" for name in names)
            if each.group == group and is_chosen:
                found = (each.option, f"{file.place}:{each.line}")
    return found


def _change(key: str, chosen: str, options: Sequence[str]) -> str:
    others = [name for name in options if name not in (chosen, "none", "default")]
    if not others:
        return ""
    combined = f"{key}=[{','.join([*chosen.strip('[]').replace(' ', '').split(','), others[0]])}]"
    return shell_line([combined if key in _LISTED and chosen else f"{key}={others[0]}"])
