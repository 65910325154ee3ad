"""`check_fields`, which compares the values of a dataclass with its annotations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from functools import cache
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

_MAX_INT = 10**300  # a larger number may not fit into a float


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def check_fields(value: object, name: str = "") -> None:
    """Check the fields of a dataclass, and of all dataclasses in it.

    The annotations may consist of ``str``, ``int``, ``float``, ``bool``, ``Any``, ``None``, unions, ``tuple[X, ...]``,
    ``Mapping[str, X]`` and dataclasses. A whole number is accepted as a ``float``.

    Args:
        value: object of a dataclass.
        name: path of the object, for the message.

    Raises:
        TypeError: for the first field whose value does not have its annotated type.
    """
    own_type: Any = type(value)
    for field, kind in _hints(own_type).items():
        path = f"{name}.{field}" if name else field
        if not _has_type(getattr(value, field), kind, path):
            raise TypeError(f"{path}: wrong type")


def _has_type(value: Any, kind: Any, path: str) -> bool:
    if type(value) is int and abs(value) >= _MAX_INT:
        return False
    if kind is Any:
        return True
    if isinstance(kind, UnionType):
        return any(_has_type(value, each, path) for each in get_args(kind))
    origin, inner = get_origin(kind), get_args(kind)
    if origin is tuple:
        return isinstance(value, tuple) and all(
            _has_type(each, inner[0], f"{path}[{place}]") for place, each in enumerate(value)
        )
    if origin is Mapping:
        return isinstance(value, Mapping) and all(
            isinstance(key, str) and _has_type(each, inner[1], f"{path}.{key}") for key, each in value.items()
        )
    if is_dataclass(kind):
        if type(value) is not kind:
            return False
        check_fields(value, path)
        return True
    return type(value) is kind or (kind is float and type(value) is int)
