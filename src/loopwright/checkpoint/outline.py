"""`outline`, which returns the names and lengths in a tree of JSON values, and `outline_fault`, which checks them.

An outline is stored with the state in a checkpoint, and detects entries that were added or removed. The code that
reads a state knows which entries it requires. It does not know the keys of dicts with arbitrary keys, such as the
metrics of a run or the state of a callback.
"""

from __future__ import annotations

from typing import Any


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
        entries = []
        for value in tree:
            entries.append(outline(value))  # A comprehension would double the depth of the stack.
        return entries if any(entry is not None for entry in entries) else len(entries)
    return None


def outline_fault(tree: object, expected: object) -> str | None:
    """Return the path and description of the first difference between JSON values and an outline, or None."""
    # A list of pending values replaces recursion, because both trees may be deeper than the stack of calls.
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
                return f"{path}: {len(value)} entries, where {num_saved} were saved"
            entries = [None] * num_saved if isinstance(outlined, int) else outlined
            pending += [(f"{path}[{i}]", value[i], entries[i]) for i in reversed(range(num_saved))]
        elif isinstance(value, dict | list) or outlined is not None:
            return f"{path}: differs in type from the saved value"
    return None


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
