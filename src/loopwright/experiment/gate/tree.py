"""Plain configuration trees: dicts, lists and scalars, how a place in them is written, and how large they may be."""

from __future__ import annotations

from collections.abc import Iterator

from loopwright.errors import SettingError, refuse, refuse_type

MAX_NODES = 10_000
MAX_CHARACTERS = 1_000_000
MAX_DEPTH = 100

TARGET = "_target_"
ARGS = "_args_"
PARTIAL = "_partial_"
RECURSIVE = "_recursive_"
CONVERT = "_convert_"
SPECIAL_KEYS = frozenset({TARGET, ARGS, PARTIAL, RECURSIVE, CONVERT})

_SCALARS = (str, int, float, bool, type(None))


def join(path: str, key: object) -> str:
    """The path of ``key`` under ``path``: ``model.layers[2].bias``; keys that are no plain words are quoted."""
    if isinstance(key, int) and not isinstance(key, bool):
        return f"{path}[{key}]"
    if isinstance(key, str) and key.isidentifier():
        return f"{path}.{key}" if path else key
    return f"{path}[{key!r}]"


def is_target(node: object) -> bool:
    """Whether ``node`` names something to be called."""
    return isinstance(node, dict) and TARGET in node


def walk(tree: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Yield every node of a plain tree with its path, parents first.

    Raises:
        SettingError: for more than 10,000 nodes, 1,000,000 characters or 100 levels (a node met twice counts
            twice, so aliases and cycles are no way around), and for a key that is not a printable scalar.
        SettingTypeError: for a value that is not plain data.
    """
    num_nodes = num_characters = 0
    stack: list[tuple[str, object, int]] = [(path, tree, 0)]
    while stack:
        where, node, depth = stack.pop()
        num_nodes += 1
        if depth > MAX_DEPTH:
            raise SettingError(_root(path), f": expected at most {MAX_DEPTH} levels of nesting.")
        if num_nodes > MAX_NODES:
            raise SettingError(_root(path), f": expected at most {MAX_NODES} values.")
        if type(node) is dict:
            for key in node:
                check_key(key, where)
                num_characters += len(str(key))
        elif type(node) is str:
            num_characters += len(node)
        if num_characters > MAX_CHARACTERS:
            raise SettingError(_root(path), f": expected at most {MAX_CHARACTERS} characters of text.")
        yield where, node
        if type(node) is dict:
            stack.extend((join(where, key), value, depth + 1) for key, value in reversed(node.items()))
        elif type(node) in (list, tuple):
            assert isinstance(node, (list, tuple))
            stack.extend((f"{where}[{i}]", node[i], depth + 1) for i in range(len(node) - 1, -1, -1))
        elif type(node) not in _SCALARS:
            raise refuse_type(where, type(node).__name__, "plain data: a mapping, a list, a text, a number or null")


def check_key(key: object, path: str) -> None:
    """Refuse a key that is not a scalar, or holds characters that a terminal would obey."""
    if type(key) not in _SCALARS:
        raise refuse_type(_root(path), key, "keys that are words or numbers")
    if isinstance(key, str) and not key.isprintable():
        raise refuse(_root(path), key, "a key of printable characters")


def _root(path: str) -> str:
    return path or "configuration"
