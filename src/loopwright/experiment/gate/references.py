"""Functions that record references ``${oc.env:NAME}`` instead of the values of environment variables.

A variable that the user allows with ``--allow-env NAME`` can contain a secret. The objects of a run are built with the
value, but the run records the reference. A resumed or repeated run replaces recorded references by values again.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from loopwright.errors import SettingError
from loopwright.experiment.gate.budget import Budget
from loopwright.experiment.gate.resolvers import READABLE_NAMES, read_variable
from loopwright.experiment.gate.tree import join

_START = "${oc.env:"
_REFERENCE = re.compile(r"\$\{oc\.env:([^${}]*)\}")


class Reference(NamedTuple):
    """A string of a configuration: its value, and the text with references that the run records."""

    value: str
    text: str


References = Mapping[tuple[Any, ...], Reference]  # by the path of the string, a tuple of keys and indices


def is_only_reference(text: object) -> bool:
    """Return whether all interpolations in a string are references to variables that the user must allow.

    Return False for a string without interpolations.
    """
    names = _REFERENCE.findall(text) if isinstance(text, str) and "\\${" not in text else []
    return bool(names) and READABLE_NAMES.isdisjoint(names) and "${" not in _REFERENCE.sub("", str(text))


def find_references(values: Any, texts: Any, allowed: Collection[str]) -> References:
    """Compare two resolved copies of a configuration, and return the strings with references.

    Args:
        values: copy in which references are resolved to values.
        texts: copy in which references to ``allowed`` variables are not resolved.
        allowed: names of variables that the user allows.

    Raises:
        SettingError: if replacing the references in a recorded text would not give the resolved value. Causes are
            another resolver that changes the value, and a backslash before a reference.
    """
    found: dict[tuple[Any, ...], Reference] = {}
    _collect(values, texts, allowed, (), "", found)
    return found


def _collect(
    value: Any, text: Any, allowed: Collection[str], place: tuple[Any, ...], path: str, found: dict[Any, Reference]
) -> None:
    if isinstance(value, dict) and isinstance(text, dict) and list(value) == list(text):
        for key in value:
            _collect(value[key], text[key], allowed, (*place, key), join(path, key), found)
    elif isinstance(value, list) and isinstance(text, list) and len(value) == len(text):
        for index, each in enumerate(value):
            _collect(each, text[index], allowed, (*place, index), join(path, index), found)
    elif isinstance(text, str) and _START in text:
        if value == text or expand(text, allowed, path, Budget()) != value:
            raise _not_recorded(path)
        found[place] = Reference(value, text)
    elif type(value) is not type(text) or (value != text and value == value):  # NaN is not equal to itself
        raise _not_recorded(path)


def _not_recorded(path: str) -> SettingError:
    expected = "a reference ${oc.env:NAME} without another resolver around it, and without a backslash before it"
    return SettingError(path, f": expected {expected}, because the run records the reference.")


def expand(text: str, allowed: Collection[str], path: str, budget: Budget) -> str:
    """Replace the references in a string by values.

    Raises:
        SettingError: for a variable that is not allowed or not set, and for a result that exceeds ``budget``.
    """
    try:
        size = sum(len(str(read_variable(name, allowed))) for name in _REFERENCE.findall(text))
    except SettingError as error:
        raise SettingError(path, f": {error}") from None
    budget.spend_text(path, len(text) + size)
    return _REFERENCE.sub(lambda match: str(read_variable(match[1], allowed)), text)


def expand_recorded(config: Mapping[str, Any], allowed: Collection[str]) -> tuple[dict[str, Any], References]:
    """Replace the references in a recorded configuration by values. Return a new configuration and its references.

    Raises:
        SettingError: for a variable that is not allowed or not set, and for strings of more than 1,000,000 characters
            in total.
    """
    found: dict[tuple[Any, ...], Reference] = {}
    budget = Budget()

    def expanded(node: Any, place: tuple[Any, ...], path: str) -> Any:
        if isinstance(node, dict):
            return {key: expanded(each, (*place, key), join(path, key)) for key, each in node.items()}
        if isinstance(node, list):
            return [expanded(each, (*place, index), join(path, index)) for index, each in enumerate(node)]
        if not isinstance(node, str) or _START not in node:
            return node
        found[place] = Reference(expand(node, allowed, path, budget), node)
        return found[place].value

    return expanded(dict(config), (), ""), found


def put_back(config: Any, references: References, place: tuple[Any, ...] = ()) -> Any:
    """Return a copy of a configuration in which the values of ``references`` are replaced by their texts.

    A value that has changed since the references were resolved is kept.
    """
    if isinstance(config, dict):
        return {key: put_back(each, references, (*place, key)) for key, each in config.items()}
    if isinstance(config, list):
        return [put_back(each, references, (*place, index)) for index, each in enumerate(config)]
    reference = references.get(place)
    return config if reference is None or reference.value != config else reference.text


def refuse_in_path(setting: str) -> SettingError:
    """Return the error for a reference in a setting that forms a path, because the path would show the value."""
    problem = ": contains ${oc.env:NAME}, whose value would be visible in the path of the run; type the value."
    return SettingError(setting, problem)
