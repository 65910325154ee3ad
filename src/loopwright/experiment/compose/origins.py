"""`read_origins`, which finds the file and line, or the override, that sets each value of a configuration.

Hydra does not record where a value comes from. Its defaults list contains the files of a composition in the order in
which Hydra merges them, and the package of each file. The files are merged again in this order, with the position of
each value instead of the value. Then the overrides are applied.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.override_parser.types import Override

from loopwright.experiment.compose.composer import Composer
from loopwright.experiment.compose.value_text import value_text
from loopwright.experiment.compose.yaml_marks import Choice, Entry, read_choices, read_entries
from loopwright.experiment.gate.config_files import check_config_file, yaml_errors
from loopwright.shipped import conf_dir

Names = tuple[str, ...]

_MISSING = "???"
_NAME = re.compile(r"[^.\[\]]+")
_DEFAULTS = "defaults"


class Writer(NamedTuple):
    """A line of a file, or an override, that sets a value.

    Attributes:
        text: value in one line of YAML.
        place: file and line, such as ``conf/loop/training.yaml:6``, or the override as typed.
        comment: comment of the line in the file; empty for an override.
        is_override: whether the value was typed.
        is_shipped: whether the file is shipped with Loopwright.
    """

    text: str
    place: str
    comment: str = ""
    is_override: bool = False
    is_shipped: bool = False


class ReadFile(NamedTuple):
    """A configuration file that was merged.

    Attributes:
        option: name in Hydra's defaults list, such as ``loop/training``.
        place: path of the file, as messages show it.
        entries: entries of the file.
        choices: lines of its defaults list that choose an option of a group.
    """

    option: str
    place: str
    entries: Mapping[str, Entry]
    choices: Sequence[Choice]


class _Section(dict[str, "_Section | list[Writer]"]):
    """Entries of a mapping in the merged configuration: mappings, and the writers of other values."""

    comment = ""  # comment of the line with the key of the mapping


class Origins:
    """Writers of the values of one composed configuration.

    Args:
        root: merged configuration.
        files: merged files, in the order in which Hydra merges them.
    """

    def __init__(self, root: _Section, files: Sequence[ReadFile]) -> None:
        self._root = root
        self.files = files

    def writers(self, path: Sequence[str]) -> Sequence[Writer]:
        """Return the writers of a value, from the first to the last. The last writer is the origin of the value.

        A list is one value. If an interpolation copies a whole section, the writers of the interpolation are returned
        for each value in the section. The result is empty for a section.
        """
        node: _Section | list[Writer] | None = self._root
        for name in path:
            if not isinstance(node, _Section):
                break
            node = node.get(name)
        return node if isinstance(node, list) else ()

    def section_comment(self, path: Sequence[str]) -> str:
        """Return the comment of the line with the key of a section; empty if there is none."""
        node: _Section | list[Writer] | None = self._root
        for name in path:
            node = node.get(name) if isinstance(node, _Section) else None
        return node.comment if isinstance(node, _Section) else ""

    def leaves(self) -> Iterator[tuple[Names, Sequence[Writer]]]:
        """Yield the path and the writers of each value."""
        stack: list[tuple[Names, _Section | list[Writer]]] = [((), self._root)]
        while stack:
            path, node = stack.pop()
            if isinstance(node, list):
                yield path, node
            else:
                stack.extend(((*path, name), each) for name, each in reversed(node.items()))


def read_origins(composer: Composer, overrides: Sequence[str]) -> Origins:
    """Find the writers of each value.

    Args:
        composer: composer of the configuration.
        overrides: overrides of a job whose configuration has been composed.

    Raises:
        SettingError: for a file that cannot be read.
    """
    root, files = _Section(), []
    composed = composer.defaults_list(overrides)
    for default in composed.defaults:
        package = str(default.package or "")
        found = None if package.split(".")[0] == "hydra" else _find(composer, str(default.config_path))
        if found is not None:
            file, place = found
            text = _read(file)
            with yaml_errors(file):
                entries, choices = read_entries(text), read_choices(text)
            read = ReadFile(option=str(default.config_path), place=place, entries=entries, choices=choices)
            files.append(read)
            content = {name: entry for name, entry in read.entries.items() if name not in (_DEFAULTS, "hydra")}
            _merge(_inside(root, package), content, place, is_shipped=file.is_relative_to(conf_dir()))
    for override in composed.config_overrides:
        names = names_in(override.key_or_group)
        if names and names[0] != "hydra":
            _apply(root, names, override)
    return Origins(root, files)


def names_in(key: str) -> Names:
    """Return the names in a key, such as ``("model", "layers", "2")`` for ``model.layers[2]``."""
    return tuple(_NAME.findall(key))


def _find(composer: Composer, option: str) -> tuple[Path, str] | None:
    """Return the path of a configuration file, and the path that messages show."""
    name = f"{option.removesuffix('.yaml')}.yaml"
    for directory in composer.directories:
        if (directory / name).is_file():
            return directory / name, _shown(directory, composer) + name
    return None


def _shown(directory: Path, composer: Composer) -> str:
    """Return the path of a directory as messages show it, with a slash at its end."""
    if directory == conf_dir():
        return "conf/" if len(composer.directories) == 1 else "loopwright:conf/"
    relative = os.path.relpath(directory)
    return f"{directory if relative.startswith(os.pardir) else relative}/".removeprefix("./")


def _read(file: Path) -> str:
    """Return the content of a file. Hydra has read the file, but a user's file can have changed since then."""
    is_shipped = file.is_relative_to(conf_dir())
    return file.read_text(encoding="utf-8") if is_shipped else check_config_file(Path(os.path.realpath(file)))


def _inside(root: _Section, package: str) -> _Section:
    """Return the section of a package. Create it if it is missing or is not a mapping."""
    section = root
    for name in names_in(package):
        child = section.get(name)
        if not isinstance(child, _Section):
            child = section[name] = _Section()
        section = child
    return section


def _merge(section: _Section, entries: Mapping[str, Entry], place: str, *, is_shipped: bool) -> None:
    """Merge the entries of a file into a section, as OmegaConf merges configurations."""
    for name, entry in entries.items():
        before = section.get(name)
        if entry.entries:
            if not isinstance(before, _Section):
                before = section[name] = _Section()
            before.comment = entry.comment or before.comment
            _merge(before, entry.entries, place, is_shipped=is_shipped)
            continue
        is_empty_mapping = entry.entries is not None
        if before is None or not (entry.text == _MISSING or (is_empty_mapping and isinstance(before, _Section))):
            writer = Writer(
                text=entry.text, place=f"{place}:{entry.line}", comment=entry.comment, is_shipped=is_shipped
            )
            section[name] = [*before, writer] if isinstance(before, list) else [writer]


def _apply(root: _Section, names: Names, override: Override) -> None:
    """Apply an override that sets or removes a value."""
    section = root
    for name in names[:-1]:
        child = section.get(name)
        if isinstance(child, list) and child[-1].text.startswith(("[", "${")):
            child.append(_typed(override, override.value()))  # the override sets an entry of a list or of a copy
            return
        if not isinstance(child, _Section):
            if override.is_delete():
                return
            child = section[name] = _Section()
        section = child
    if override.is_delete():
        section.pop(names[-1], None)
    else:
        _update(section, names[-1], override.value(), override)


def _update(section: _Section, name: str, value: Any, override: Override) -> None:
    before = section.get(name)
    if isinstance(value, Mapping) and (value or isinstance(before, _Section)):
        if not isinstance(before, _Section):
            before = section[name] = _Section()
        for key, each in value.items():
            _update(before, str(key), each, override)
    else:
        writer = _typed(override, value)
        section[name] = [*before, writer] if isinstance(before, list) else [writer]


def _typed(override: Override, value: Any) -> Writer:
    return Writer(text=value_text(value), place=str(override.input_line), is_override=True)
