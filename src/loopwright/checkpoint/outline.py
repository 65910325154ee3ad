"""`outline` records the names and lengths in a tree of JSON values.

`outline_fault` compares the outlines of two trees, and describes the first difference.

Some mappings have arbitrary keys, such as a run's metrics or a callback's state. `decode` cannot detect that such a key
is missing. A checkpoint therefore stores an outline of its JSON values, and loading compares the values with it.
"""

from __future__ import annotations

from typing import Any

_NOTHING = object()  # in place of the outline of a name that is missing
_SCALARS = frozenset({type(None), bool, int, float, str})


def outline(tree: object) -> Any:
    """Return the outline of JSON values.

    A dict is replaced by a dict of the outlines of its values. A list is replaced by the list of the outlines of its
    items, or by its length if all items are scalars. A scalar is replaced by None.
    """
    if isinstance(tree, dict):
        names = dict.fromkeys(tree)
        for name, value in tree.items():
            names[name] = outline(value)
        return names
    if isinstance(tree, list):
        if _SCALARS.issuperset(map(type, tree)):
            return len(tree)
        entries = []
        for value in tree:
            entries.append(outline(value))  # A list comprehension would double the number of stack frames.
        return entries if any(entry is not None for entry in entries) else len(entries)
    return None


def outline_fault(found: Any, expected: Any) -> str | None:
    """Describe the first difference between two outlines, with its path. Return None if they are equal."""
    if isinstance(found, dict) and isinstance(expected, dict):
        pairs = ((f".{key}", found.get(key, _NOTHING), expected.get(key, _NOTHING)) for key in {**expected, **found})
    elif isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        pairs = ((f"[{index}]", *pair) for index, pair in enumerate(zip(found, expected, strict=True)))
    else:
        return None if found == expected else f": expected {_kind(expected)}, found {_kind(found)}"
    for step, *pair in pairs:
        fault = outline_fault(*pair)
        if fault is not None:
            return step + fault
    return None


def _kind(outlined: object) -> str:
    if isinstance(outlined, int | list):
        return f"a list of {outlined} scalars" if isinstance(outlined, int) else f"a list of {len(outlined)} values"
    return "an object" if isinstance(outlined, dict) else "nothing" if outlined is _NOTHING else "a scalar"
