"""`value_text`, which formats the value of a setting in one line, as it is typed in an override."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import yaml  # a dependency of omegaconf

_RESOLVER = yaml.resolver.Resolver()
_STRING = "tag:yaml.org,2002:str"
_NOT_PLAIN = frozenset(",[]{}\"'#&*!|>%@`?")


def value_text(value: Any) -> str:
    """Format a value in one line: ``null``, ``true``, ``0.001``, ``[0.9, 0.999]``, ``{timeout_seconds: 600}``.

    A string that YAML would read as another value is quoted.

    >>> value_text(["a", "1", None]), value_text({"lr": 1e-05})
    ("[a, '1', null]", '{lr: 1e-05}')
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{value_text(key)}: {value_text(each)}' for key, each in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(value_text, value))}]"
    if not isinstance(value, str):
        return str(value)
    is_interpolation = value.startswith("${") and value.endswith("}") and value.isprintable()
    return value if is_interpolation or _is_plain(value) else _quoted(value)


def _is_plain(text: str) -> bool:
    if not text or text != text.strip() or not text.isprintable() or _NOT_PLAIN.intersection(text):
        return False
    if ": " in text or text.endswith(":") or text.startswith("- ") or text in ("-", "="):
        return False
    return str(_RESOLVER.resolve(yaml.ScalarNode, text, (True, False))) == _STRING


def _quoted(text: str) -> str:
    if "'" not in text and text.isprintable():
        return f"'{text}'"
    # YAML accepts neither of these two control characters, which JSON does not escape.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\x7f").replace("\x85", "\\x85")
