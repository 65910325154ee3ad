"""`formatted`, which returns a table as JSON, CSV or Markdown. All three have the same fields in the same order."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from loopwright.errors import printable

FORMATS = ("text", "json", "csv", "md")


def formatted(kind: str, fields: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a table as text without a newline at its end.

    Numbers that are not finite are the words NaN, Infinity and -Infinity. A missing value is null in JSON and an empty
    cell in CSV and Markdown. Lists and mappings in a cell of CSV or Markdown are JSON.

    Args:
        kind: "json", "csv" or "md".
        fields: names of the fields.
        rows: values by field.
    """
    if kind == "json":
        return json.dumps([plain_value({field: row[field] for field in fields}) for row in rows], indent=1)
    cells = [[_cell(row[field]) for field in fields] for row in rows]
    if kind == "csv":
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([fields, *cells])
        return text.getvalue().rstrip("\n")
    lines = [fields, ["---"] * len(fields), *cells]
    return "\n".join(f"| {' | '.join(each if each == '---' else _escaped(each) for each in line)} |" for line in lines)


def plain_value(fields: Mapping[str, Any]) -> Any:
    """Return fields as JSON values: times as text, numbers that are not finite as words."""
    return _plain({name: each.isoformat() if isinstance(each, datetime) else each for name, each in fields.items()})


def _cell(value: Any) -> str:
    """Return a value with all its digits."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, float):
        return str(_plain(value))
    if isinstance(value, list | dict):
        return printable(json.dumps(_plain(value), ensure_ascii=False), keeps_newlines=False) if value else ""
    return printable(str(value).lower() if isinstance(value, bool) else str(value), keeps_newlines=False)


def _escaped(text: str) -> str:
    """Escape the characters of a text that have a meaning in Markdown."""
    return re.sub(r"([\\|`*<\[\]])", r"\\\1", text)


def _plain(value: Any) -> Any:
    """Convert a nested value for JSON. NaN and infinite numbers become words."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value
