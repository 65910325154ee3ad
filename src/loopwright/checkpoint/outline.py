"""`outline`: the names and lengths in a tree of JSON values, so that what has gone from it, or come to it, is seen.

A reader knows which entries it needs, but not which a mapping of any names should have: the metrics of a run, the
state of a callback. Their outline, stored beside them, does.
"""

from __future__ import annotations

from typing import Any


def outline(tree: object) -> Any:
    """The outline of JSON values: objects keep their names, lists their length, and scalars become null."""
    if isinstance(tree, dict):
        names = dict.fromkeys(tree)
        for name, value in tree.items():
            names[name] = outline(value)
        return names
    if isinstance(tree, list):
        entries = []
        for value in tree:
            entries.append(outline(value))  # no comprehension: it would double the depth of the stack
        return entries if any(entry is not None for entry in entries) else len(entries)
    return None


def outline_fault(tree: object, expected: object) -> str | None:
    """Where JSON values first depart from an outline, and how; None where they do not."""
    pending: list[tuple[str, Any, Any]] = [("", tree, expected)]  # not by recursion: neither may be as deep as it likes
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
            return f"{path}: not what was saved there"
    return None


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
