"""Functions that check configuration values against type annotations, and describe annotations in messages."""

from __future__ import annotations

import collections.abc
import enum
import inspect
import os
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

_SEQUENCES = (
    list,
    tuple,
    collections.abc.Sequence,
    collections.abc.Iterable,
    collections.abc.Collection,
    collections.abc.MutableSequence,
)
_MAPPINGS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_SCALARS = (str, int, float, bool, type(None))


def accepts(value: object, annotation: object) -> bool | None:
    """Return whether a parameter with the type ``annotation`` accepts ``value``.

    An int is accepted for float, and a list for tuple. A bool is refused for int. A string is refused for a sequence of
    strings.

    Returns:
        True or False. None if the annotation is not checked, for example a protocol, a callable or most classes.
    """
    if annotation is None or annotation is types.NoneType:
        return value is None
    if annotation in (bool, int, float, str):
        return type(value) in (int, float) if annotation is float else type(value) is annotation
    origin = get_origin(annotation)
    if origin is Annotated:
        return accepts(value, get_args(annotation)[0])
    if origin is Literal:
        return any(type(value) is type(option) and value == option for option in get_args(annotation))
    if origin in (Union, types.UnionType):
        return _accepts_union(value, get_args(annotation))
    kind = origin or annotation
    if kind in _SEQUENCES:
        return _accepts_sequence(value, kind, get_args(annotation))
    if kind in _MAPPINGS:
        return _accepts_mapping(value, get_args(annotation))
    return None


_WORDS = {int: "a whole number", float: "a number", str: "a string", bool: "true or false", dict: "a mapping"}
_PLURALS = {int: "whole numbers", float: "numbers", str: "strings"}


def say(annotation: object) -> str:
    """Describe an annotation for a message, such as ``a whole number or null`` or ``a list of numbers``."""
    if annotation is None or annotation is types.NoneType:
        return "null"
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return say(arguments[0])
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(say, arguments)))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        is_known = len(arguments) == 2 and arguments[1] is not Any
        return f"a mapping of names to {_PLURALS.get(arguments[1]) or say(arguments[1])}" if is_known else "a mapping"
    if isinstance(origin, type) and issubclass(origin, Sequence):
        members = [member for member in arguments if member is not Ellipsis]
        of_what = _PLURALS.get(members[0]) if len(set(members)) == 1 else None
        is_fixed = issubclass(origin, tuple) and Ellipsis not in arguments
        return f"a list of {f'{len(members)} ' if is_fixed else ''}{of_what}" if of_what else "a list"
    if isinstance(annotation, type):
        return _WORDS.get(annotation, annotation.__name__)
    return inspect.formatannotation(annotation).replace("typing.", "")


def options(annotation: object) -> list[str]:
    """Return the strings that an annotation allows with ``Literal``, including ``Literal`` types inside unions."""
    if get_origin(annotation) is Literal:
        return [option for option in get_args(annotation) if isinstance(option, str)]
    if get_origin(annotation) in (Union, types.UnionType, Annotated):
        return [option for member in get_args(annotation) for option in options(member)]
    return []


def _accepts_union(value: object, members: Sequence[object]) -> bool | None:
    verdicts = [accepts(value, member) for member in members]
    if any(verdict is True for verdict in verdicts):
        return True
    unjudged = [member for member, verdict in zip(members, verdicts, strict=True) if verdict is None]
    # For example, "abc" is refused for `lr: float | Tensor`, because a target never receives a Tensor from a string.
    if len(unjudged) < len(members) and all(_is_never(value, member) for member in unjudged):
        return False
    return None


def _is_never(value: object, kind: object) -> bool:
    """Return whether ``value`` is a scalar that a parameter of the concrete class ``kind`` does not accept.

    Return False for path and enumeration classes, because many targets convert strings to paths or enumerations.
    """
    if type(value) not in _SCALARS or not isinstance(kind, type) or kind is object:
        return False
    takes_texts = issubclass(kind, (os.PathLike, enum.Enum))
    return not takes_texts and not inspect.isabstract(kind) and not getattr(kind, "_is_protocol", False)


def _accepts_sequence(value: object, kind: object, members: Sequence[object]) -> bool | None:
    if not isinstance(value, (list, tuple)):
        # An object of another class may be iterable, so the result is None for such an object.
        return False if type(value) in (*_SCALARS, dict) else None
    if kind is tuple and members and members[-1] is not Ellipsis:
        if len(value) != len(members):
            return False
        return _all_of([accepts(item, member) for item, member in zip(value, members, strict=True)])
    if not members:
        return True
    return _all_of([accepts(item, members[0]) for item in value])


def _accepts_mapping(value: object, members: Sequence[object]) -> bool | None:
    if not isinstance(value, Mapping):
        return False if type(value) in (*_SCALARS, list, tuple) else None
    if len(members) != 2:
        return True
    return _all_of([accepts(item, kind) for pair in value.items() for item, kind in zip(pair, members, strict=True)])


def _all_of(verdicts: Sequence[bool | None]) -> bool | None:
    if any(verdict is False for verdict in verdicts):
        return False
    return None if any(verdict is None for verdict in verdicts) else True


def hints_of(function: object, annotations: Mapping[str, object]) -> dict[str, object]:
    """Evaluate the annotations of a function to types. Annotations that cannot be evaluated are left out."""
    scope = getattr(inspect.unwrap(function), "__globals__", {}) if callable(function) else {}
    hints: dict[str, object] = {}
    for name, annotation in annotations.items():
        single: Any = types.SimpleNamespace(__annotations__={name: annotation})
        try:
            hints[name] = typing.get_type_hints(single, globalns=scope)[name]
        except (NameError, TypeError, AttributeError, SyntaxError):
            continue  # the annotation is not a type, or contains a name that is imported only under TYPE_CHECKING
    return hints
