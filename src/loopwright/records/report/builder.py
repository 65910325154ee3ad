"""A small builder of HTML and SVG that escapes every text.

`element` makes an `Element`, and `render` converts elements to text. Texts of a run, such as metric names, can
only become text or attribute values of the page, and never markup.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]*")
_EMPTY = frozenset({"br", "col", "hr", "img", "input", "link", "meta"})  # tags without an end tag
_REFUSED_TAGS = frozenset({"base", "embed", "iframe", "link", "object", "script", "style"})
_ADDRESSES = ("href", "src")
_LOCAL = re.compile(r"#[\w.-]*|data:image/png;base64,[A-Za-z0-9+/=]*")
# Characters that XML does not allow, and characters that change the direction of a text or are invisible.
_INVISIBLE = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)


@dataclass(frozen=True, slots=True)
class Element:
    """An element of a page. Use `element` to make one."""

    tag: str
    attributes: tuple[tuple[str, str], ...]
    children: tuple[Any, ...]


def element(tag: str, *children: Any, **attributes: Any) -> Element:
    """Make an element.

    Args:
        tag: name of the element, such as ``td``.
        children: elements, texts, numbers, and lists of these. None is omitted.
        attributes: values of attributes by name. An underscore at the end is removed, and other underscores become
            hyphens: ``class_``, ``aria_label``. None and False omit the attribute, and True gives it no value.

    Raises:
        ValueError: for an invalid name, for an element or attribute that can run code, and for an address that is
            outside the page.
    """
    if not _NAME.fullmatch(tag) or tag.lower() in _REFUSED_TAGS:
        raise ValueError(f"{tag!r}: not an element of a page")
    found = []
    for key, value in attributes.items():
        name = key.removesuffix("_").replace("_", "-")
        if not _NAME.fullmatch(name) or name.lower().startswith("on"):
            raise ValueError(f"{name!r}: not an attribute of a page")
        if value is None or value is False:
            continue
        if name in _ADDRESSES and not _LOCAL.fullmatch(str(value)):
            raise ValueError(f"{name}={value!r}: not an address inside the page")
        found.append((name, "" if value is True else str(value)))
    return Element(tag, tuple(found), children)


def render(child: Any) -> str:
    """Convert elements and texts to HTML."""
    return "".join(_parts(child))


def visible(text: str) -> str:
    """Replace invisible characters and control characters of a text, except tabs and newlines, by their codes."""
    return _INVISIBLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def json_block(name: str, value: Any) -> str:
    """Return a script element that contains data as JSON. A browser does not execute it.

    Args:
        name: value of the attribute ``id``.
        value: JSON value. Numbers must be finite.

    Raises:
        ValueError: for a name that is not a word, and for a number that is not finite.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r}: expected a word")
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))  # only ASCII characters
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return f'<script type="application/json" id="{name}">{text}</script>'


def _parts(child: Any) -> Iterator[str]:
    if child is None:
        return
    if isinstance(child, Element):
        yield f"<{child.tag}"
        for name, value in child.attributes:
            yield f' {name}="{html.escape(visible(value))}"' if value else f" {name}"
        yield ">"
        if child.tag in _EMPTY:
            return
        for each in child.children:
            yield from _parts(each)
        yield f"</{child.tag}>"
    elif isinstance(child, str | int | float):
        yield html.escape(visible(str(child)), quote=False)
    else:
        for each in child:
            yield from _parts(each)
