"""`masked`, which hides values of settings whose names show that they are secret."""

from __future__ import annotations

import re

_NAMES = "key|token|password|secret"
_VALUE = re.compile(
    rf"""((?:{_NAMES})["']?[ \t]*[:=][ \t]*)(?!\s|null\b|None\b)("[^"\n]*"|'[^'\n]*'|[^\s,}}\]]+)""", re.IGNORECASE
)
_NAME = re.compile(rf"(?:{_NAMES})$", re.IGNORECASE)
HIDDEN = "•••"


def masked(text: str) -> str:
    """Replace each value after a name that ends in ``key``, ``token``, ``password`` or ``secret``."""
    return _VALUE.sub(rf"\g<1>{HIDDEN}", text)


def is_secret(path: str) -> bool:
    """Return whether the name of a setting shows that its value is secret."""
    return _NAME.search(path) is not None
