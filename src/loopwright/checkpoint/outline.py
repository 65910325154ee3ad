"""`outline` records the names and lengths in a tree of JSON values.

`outline_fault` compares JSON values with an outline, and describes the first difference.

Some mappings have arbitrary keys, such as a run's metrics or a callback's state. `decode` cannot detect that such a key
is missing. A checkpoint therefore stores an outline of its JSON values, and loading compares the values with it.
"""

from __future__ import annotations

from typing import Any

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


def outline_fault(tree: object, expected: object) -> str | None:
    """Describe the first difference between JSON values and an outline, with its path. Return None if they match."""
    # A loop, not recursion: a damaged file may be nested deeper than Python's recursion limit.
    pending: list[tuple[str, Any, Any]] = [("", tree, expected)]
    while pending:
        path, value, outlined = pending.pop()
        if isinstance(value, dict) and isinstance(outlined, dict):
            for name in (*outlined, *value):
                if name not in value or name not in outlined:
                    return f"{_join(path, name)}: {'unexpected' if name in value else 'missing'}"
            pending += [(_join(path, name), value[name], outlined[name]) for name in reversed(value)]
        elif isinstance(value, list) and isinstance(outlined, int | list):
            num_saved = outlined if isinstance(outlined, int) else len(outlined)
            if len(value) != num_saved:
                return f"{path}: {len(value)} items, but {num_saved} were saved"
            entries = [None] * num_saved if isinstance(outlined, int) else outlined
            pending += [(f"{path}[{i}]", value[i], entries[i]) for i in reversed(range(num_saved))]
        elif isinstance(value, dict | list) or outlined is not None:
            kind = "a list" if isinstance(outlined, int) else _kind(outlined)  # an outline may be the length of a list
            return f"{path}: expected {kind}, found {_kind(value)}"
    return None


def _kind(value: object) -> str:
    return "an object" if isinstance(value, dict) else "a list" if isinstance(value, list) else "a scalar"


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
