"""Functions that format explanations of settings for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from loopwright.errors import on_one_line
from loopwright.experiment.explain.explanation import Explanation
from loopwright.experiment.explain.overview import Overview
from loopwright.terminal_text import wrapped

_LABEL = 13  # width of the labels
_TYPE_COLUMN = 61  # column of the types, if the value before the type is short
_MAX_VALUE = 48  # maximum number of characters of a value in a list of settings


def explanation_text(explanation: Explanation, width: int) -> str:
    """Format what is known about one setting, for ``width`` columns."""
    one = explanation
    rows = [("set by", one.set_by)]
    rows += [("instead of", f"{each.value}, {each.by}") for each in one.instead_of]
    rows += [("reads", f"{each.key} = {each.value}, set by {each.set_by}") for each in one.reads]
    rows += [] if one.understood is None else [("understood", one.understood)]
    rows.append(("change it", one.change))
    head = _head(f"{one.key} = {one.value}", one.type, width)
    return "\n".join([head, *_meaning(one.meaning, width), *_rows(rows, width)])


def overview_text(overview: Overview, width: int) -> str:
    """Format the options of a group and the settings of a section, for ``width`` columns."""
    one = overview
    head = _head(f"{one.key} = {one.chosen}" if one.chosen else one.key, one.target, width)
    rows = [("set by", one.set_by)] if one.set_by else []
    rows += [("change it", one.change)] if one.change else []
    lines = [head, *_meaning(one.meaning, width), *_rows(rows, width)]
    if one.options:
        marked = [("*" if each.is_chosen else " ", each.name, each.meaning) for each in one.options]
        lines += ["", f"  Options: {one.key}=OPTION (* chosen)", *_columns(marked, width, indent=2)]
    if one.keys:
        shown = [(each.key, _shortened(each.value), each.meaning or each.set_by) for each in one.keys]
        lines += ["", "  Settings", *_columns(shown, width, indent=4)]
    return "\n".join(lines)


def origins_text(rows: Iterable[tuple[str, str, str]]) -> str:
    """Format the keys, values and origins of all settings in aligned columns."""
    shown = [(key, _shortened(value), origin) for key, value, origin in rows]
    return "\n".join(_columns(shown, None, indent=0, separator=" = "))


def _head(left: str, right: str, width: int) -> str:
    """Join a setting and its type. A type that does not fit is on its own line."""
    left, right = on_one_line(left), on_one_line(right)
    line = f"{left:<{_TYPE_COLUMN}}  {right}".rstrip()
    if len(line) > width and right:
        line = f"{left}  {right}"
    return line if len(line) <= width or not right else f"{left}\n  {right}"


def _meaning(text: str, width: int) -> list[str]:
    return [line for line in wrapped(f"  {on_one_line(text)}", width).split("\n") if line.strip()]


def _rows(rows: Sequence[tuple[str, str]], width: int) -> list[str]:
    texts = [f"  {label:<{_LABEL}}{on_one_line(text)}" for label, text in rows]
    return [line for text in texts for line in wrapped(text, width).split("\n")]


def _columns(
    rows: Sequence[tuple[str, str, str]], width: int | None, *, indent: int, separator: str = "  "
) -> list[str]:
    """Align three columns. The last column is cut to ``width``; None: it is not cut."""
    first = max(len(row[0]) for row in rows)
    second = max(len(row[1]) for row in rows)
    lines = []
    for left, middle, right in rows:
        line = f"{' ' * indent}{left:<{first}}{separator}{middle:<{second}}  {on_one_line(right)}".rstrip()
        lines.append(line if width is None or len(line) <= width else f"{line[: width - 1]}…")
    return lines


def _shortened(value: str) -> str:
    value = on_one_line(value)
    return value if len(value) <= _MAX_VALUE else f"{value[: _MAX_VALUE - 1]}…"
