"""Functions that order, group and name the values of the factors of a sweep for its pictures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from loopwright.errors import on_one_line
from loopwright.experiment.sweep.index import Factor, Group
from loopwright.experiment.sweep.tables.cell_text import headings

_MAX_NAME = 26  # maximum number of characters of the name of a factor
_MAX_VALUE = 24  # maximum number of characters of a value
_MAX_NUMBER = 1e150  # larger numbers are not drawn, because their squares could overflow

_T = TypeVar("_T")


def groups_by_value(factor: Factor, groups: Sequence[Group]) -> list[tuple[Any, list[Group]]]:
    """Return each value of a factor with its groups.

    The values of an interval are sorted. Other values have the order in which they were typed.
    """
    found: dict[str, tuple[Any, list[Group]]] = {}
    for group in groups:
        value = group.values.get(factor.key)
        found.setdefault(value_key(value), (value, []))[1].append(group)
    if factor.values is None and all(is_number(value) for value, _ in found.values()):
        return sorted(found.values(), key=lambda pair: pair[0])
    typed = {value_key(value): place for place, value in enumerate(factor.values or ())}
    return [found[key] for key in sorted(found, key=lambda key: typed.get(key, len(typed)))]


def bins(items: Sequence[_T], num_bins: int) -> list[list[_T]]:
    """Divide a sequence into at most ``num_bins`` parts whose lengths differ by at most 1."""
    num_bins = min(num_bins, len(items))
    return [list(items[at * len(items) // num_bins : (at + 1) * len(items) // num_bins]) for at in range(num_bins)]


def is_number(value: Any) -> bool:
    """Return whether a value is a number that can be drawn on an axis. NaN and infinite numbers cannot be drawn."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _MAX_NUMBER


def value_key(value: Any) -> str:
    """Return a text that is equal for equal values of a factor. The values 1, 1.0 and true have different texts."""
    return json.dumps(value, sort_keys=True)


def value_texts(values: Iterable[Any]) -> dict[str, str]:
    """Return a short text for each value of a factor, by the `value_key` of the value.

    Long texts lose characters in the middle. If this makes the texts of two values equal, the beginning that all texts
    have in common is left out instead.
    """
    texts = {value_key(value): _full_text(value) for value in values}
    short = {key: shortened(text, _MAX_VALUE) for key, text in texts.items()}
    if len(set(short.values())) == len(set(texts.values())):
        return short
    first, last = min(texts.values()), max(texts.values())  # the beginning that these two share is shared by all texts
    start = next((at for at, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), len(first))
    return {key: on_one_line(f"…{text[start:]}" if start else text, _MAX_VALUE) for key, text in texts.items()}


def _full_text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return on_one_line(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def short_names(factors: Sequence[Factor]) -> list[str]:
    """Return the heading of each factor in the table of the sweep, shortened."""
    names = headings([factor.key for factor in factors])
    return [shortened(names[factor.key], _MAX_NAME) for factor in factors]


def shortened(text: str, limit: int) -> str:
    """Return a text on one printable line. A text with more than ``limit`` characters loses characters in its middle.

    Texts such as paths often differ at their ends.
    """
    line = on_one_line(text)
    return line if len(line) <= limit else f"{line[: limit // 2]}…{line[len(line) - (limit - 1 - limit // 2) :]}"
