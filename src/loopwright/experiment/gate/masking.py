"""`mask` and `masked_output`, which replace the values of environment variables in text by ``${oc.env:NAME}``.

A message can contain such a value, for example in the path of a missing file. Messages are masked when they are printed
or written. Recorded configurations need no masking, because `loopwright.experiment.gate.references` replaces the
values.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TextIO, cast

from loopwright.experiment.gate.trust import Trust

# Shorter values are not masked, because other words can contain them.
MIN_CHARACTERS = 8


def mask(text: str, names: Sequence[str]) -> str:
    """Replace the values of environment variables in a text by ``${oc.env:NAME}``.

    Escaped and truncated values are also replaced. Values of fewer than `MIN_CHARACTERS` characters are not replaced.
    """
    values = {name: os.environ.get(name, "") for name in names}
    for name, value in sorted(values.items(), key=lambda item: -len(item[1])):
        if len(value) < MIN_CHARACTERS:
            continue
        for form in _forms(value):
            text = text.replace(form, f"${{oc.env:{name}}}")
            if "…" in text:  # the text may contain a truncated value
                for length in range(len(form) - 1, MIN_CHARACTERS - 1, -1):
                    text = text.replace(f"{form[:length]}…", f"${{oc.env:{name}}}…")
    return text


def masking(trust: Trust) -> Callable[[str], str]:
    """Return the function that masks the values of the environment variables that the user allows."""
    return partial(mask, names=trust.variables)


def _forms(value: str) -> list[str]:
    """Return the value as it is written in messages, Python code, JSON and YAML. The longest string comes first."""
    forms = {value, " ".join(value.split()), repr(value)[1:-1], value.encode("unicode_escape").decode()}
    forms |= {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], value.replace("'", "''")}
    return sorted(forms, key=len, reverse=True)


@contextmanager
def masked_output(names: Sequence[str]) -> Iterator[None]:
    """Mask the text that is written to ``sys.stdout`` and ``sys.stderr`` while the context is open."""
    if not names:
        yield
        return
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast(TextIO, _MaskedStream(stream, names)) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


class _MaskedStream(io.TextIOBase):
    """Writes masked text to another stream."""

    def __init__(self, stream: TextIO, names: Sequence[str]) -> None:
        self._stream = stream
        self._names = names

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self._stream.errors

    def write(self, text: str, /) -> int:
        self._stream.write(mask(text, self._names))
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()
