"""`Fault`, a reason why a table cannot be used, and `all_faults`, which builds one message from all faults."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["number", "category", "ignore"]

_MAX_SHOWN = 10  # largest number of faults that a message describes

# Column names that can be typed in an override, because Hydra parses them as strings.
_TYPABLE = re.compile(r"(?!(?:null|true|false|nan|inf)$)[a-z_][\w %*@?|/+\-.()\[\]{}:=,\\]*", re.ASCII | re.IGNORECASE)
# Characters that need a backslash in a column name in an override.
_ESCAPED = re.compile(r"[()\[\]{}:=,\\]")


@dataclass(frozen=True, slots=True)
class Remedy:
    """A change of the configuration with which a table can be used despite a fault.

    Attributes:
        purpose: effect of the remedy, after the word ``to`` in a message.
        kind: type to give to the column; None if the remedy is a setting of the whole table.
        setting: override, such as ``data.missing=fill``; "" if the remedy gives the column a type.
    """

    purpose: str
    kind: Kind | None = None
    setting: str = ""


AS_CATEGORIES = Remedy("read its cells as categories", "category")
BOTH_AS_CATEGORIES = Remedy("read both as categories", "category")
LEAVE_OUT = Remedy("leave the column out", "ignore")
FILL_EMPTY = Remedy("fill empty cells", setting="data.missing=fill")
READ_COMMAS = Remedy("read decimal commas", setting="data.decimal=comma")
READ_POINTS = Remedy("read decimal points", setting="data.decimal=point")


@dataclass(frozen=True, slots=True)
class Fault:
    """A reason why a table cannot be used.

    Attributes:
        problem: text of the message after the path, such as ``, row 3, column x: is empty; expected a value``.
        column: name of the column; "" for a fault of a whole row.
        remedies: changes of the configuration that repair the fault, the best one first.
        by_hand: how to change the file. A message about several faults omits this text for a fault with remedies.
    """

    problem: str
    column: str = ""
    remedies: tuple[Remedy, ...] = ()
    by_hand: str = ""


def all_faults(faults: Sequence[Fault], types: Mapping[str, Kind]) -> str:
    """Return the message for all faults, without the path. It ends with the remedies, if there are any.

    Args:
        faults: at least one fault.
        types: column types that the user gave, by column name.
    """
    if len(faults) == 1:
        (fault,) = faults
        advice = [f"use {_line([(fault, remedy)], types)} to {remedy.purpose}" for remedy in fault.remedies]
        by_hand = [fault.by_hand] if fault.by_hand else []
        return "; ".join(part for part in (fault.problem, ", or ".join(by_hand + advice)) if part) + "."
    shown = [
        f"{fault.problem}; {fault.by_hand}" if fault.by_hand and not fault.remedies else fault.problem
        for fault in faults[:_MAX_SHOWN]
    ]
    first, *others = shown
    text = f"{first}." + "".join(f" Also: {problem.removeprefix(', ')}." for problem in others)
    if len(faults) > len(shown):
        text += f" Also: {len(faults) - len(shown):,} more."
    repaired = [(fault, fault.remedies[0]) for fault in faults if fault.remedies]
    if not repaired:
        return text
    which = "all of this" if len(repaired) == len(faults) else "the other columns"
    return f"{text} To repair {which}, type {_line(repaired, types)}."


def _line(remedies: Sequence[tuple[Fault, Remedy]], types: Mapping[str, Kind]) -> str:
    """Return what to type to apply the remedies: overrides, and lines of a configuration file."""
    settings = sorted({remedy.setting for _, remedy in remedies if remedy.setting})
    kinds = {fault.column: remedy.kind for fault, remedy in remedies if remedy.kind is not None}
    if not kinds:
        return " ".join(settings)
    text = typed({**types, **kinds})
    return (" and " if text.startswith("types") else " ").join([*settings, text])


def typed(types: Mapping[str, Kind]) -> str:
    """Return what to type to give columns these types: an override, or a line of a configuration file.

    If Hydra cannot read one of the column names in a mapping, the override contains a JSON string. If this JSON string
    contains a single quote or a backslash, the result is a line of a configuration file, which needs no escapes.
    """
    if all(_TYPABLE.fullmatch(column) for column in types):
        pairs = (f"{_ESCAPED.sub(_escape, column)}: {given}" for column, given in types.items())
        return shlex.quote(f"data.types={{{', '.join(pairs)}}}")
    text = json.dumps(types, ensure_ascii=False)
    if not {"'", "\\"} & {*text}:
        return shlex.quote(f"data.types='{text}'")
    quoted = (f"{json.dumps(column, ensure_ascii=False)}: {given}" for column, given in types.items())
    return f"types: {{{', '.join(quoted)}}} in a configuration file"


def _escape(found: re.Match[str]) -> str:
    return "\\" + found[0]
