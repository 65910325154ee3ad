"""Functions that read a configuration file as entries with line numbers and comments."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import yaml  # a dependency of omegaconf

# The parser in C is faster. Both parsers give the same nodes.
_LOADER: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_STRING = "tag:yaml.org,2002:str"
_MERGE = "tag:yaml.org,2002:merge"
_QUOTED_OR_COMMENT = re.compile(r"""'(?:[^']|'')*'|"(?:\\.|[^"\\])*"|(?:^|(?<=\s))\#.*""")


_CHOICE = re.compile(r"\s*-\s+(?:override\s+|optional\s+)*/?([\w/]+)\s*:\s*([^#]*[^#\s])")


class Choice(NamedTuple):
    """A line of a defaults list that chooses an option of a group, such as ``- override /model: mlp``."""

    group: str
    option: str
    line: int


class Entry(NamedTuple):
    """An entry of a mapping in a YAML file.

    Attributes:
        line: number of the line with the key, from 1.
        comment: comment at the end of this line, without the number sign; empty if there is none.
        text: value in one line of YAML. Empty for a mapping with entries.
        entries: entries of the value, by key; None if the value is not a mapping.
    """

    line: int
    comment: str
    text: str
    entries: Mapping[str, Entry] | None = None


def read_entries(text: str) -> Mapping[str, Entry]:
    """Return the entries of the mapping in a YAML file, by key. Empty if the file contains no mapping.

    Args:
        text: content of a file that `check_config_file` has accepted, or of a shipped file.
    """
    node = yaml.compose(text, Loader=_LOADER)
    return _entries(node, text.splitlines()) if isinstance(node, yaml.MappingNode) else {}


def read_choices(text: str) -> list[Choice]:
    """Return the lines of the defaults list of a configuration file that choose an option of a group."""
    found, is_inside = [], False
    for number, line in enumerate(text.splitlines(), start=1):
        match = _CHOICE.match(line)
        if line.startswith("defaults:"):
            is_inside = True
        elif is_inside and match is not None:
            found.append(Choice(match[1], match[2], number))
        elif line and not line.startswith((" ", "#", "-")):
            is_inside = False
    return found


def _entries(node: yaml.MappingNode, lines: list[str]) -> dict[str, Entry]:
    if any(key.tag == _MERGE for key, _ in node.value):
        yaml.SafeLoader("").flatten_mapping(node)
    return {_key(key): _entry(key.start_mark.line, value, lines) for key, value in node.value}


def _key(node: yaml.Node) -> str:
    return str(node.value if node.tag == _STRING else yaml.SafeLoader("").construct_object(node))


def _entry(index: int, value: yaml.Node, lines: list[str]) -> Entry:
    comment = comment_of(lines[index]) if index < len(lines) else ""
    if isinstance(value, yaml.MappingNode) and value.value:
        return Entry(index + 1, comment, "", _entries(value, lines))
    return Entry(index + 1, comment, _text(value), {} if isinstance(value, yaml.MappingNode) else None)


def _text(node: yaml.Node) -> str:
    """Return a value in one line of YAML."""
    if isinstance(node, yaml.SequenceNode):
        return f"[{', '.join(map(_text, node.value))}]"
    if isinstance(node, yaml.MappingNode):
        return f"{{{', '.join(f'{_text(key)}: {_text(value)}' for key, value in node.value)}}}"
    if node.style:
        return repr(node.value)
    return "null" if node.tag == "tag:yaml.org,2002:null" else str(node.value)


def comment_of(line: str) -> str:
    """Return the comment at the end of a line of YAML, without the number sign; empty if there is none.

    >>> comment_of("delimiter: '#'   # character between two cells")
    'character between two cells'
    """
    found = [each[0] for each in _QUOTED_OR_COMMENT.finditer(line) if each[0].startswith("#")]
    return found[0].lstrip("#").strip() if found else ""
