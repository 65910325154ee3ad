"""`read_uplot`, which reads the script and the style of uPlot from the optional package ``uplot-python``.

uPlot (MIT licence) draws interactive charts. Its script is embedded in a report, so a report fetches nothing.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from loopwright.regular_files import read_regular

# SHA-256 of the scripts that were tried. An unknown script is not embedded, because the page would run it.
_TRIED = frozenset({"655bc8aa33781e8721c5af6b59f1699c03c9bda951aa74a6ab518ac20cc4326d"})  # of uplot-python 1.1.1
_MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class UPlot:
    """The script and the style of uPlot."""

    script: str
    style: str


def read_uplot() -> UPlot | None:
    """Return the script and the style of uPlot; None if the package is missing or contains an unknown script.

    The package is not imported.
    """
    spec = find_spec("uplot")
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "static"
    try:
        script = read_regular(folder / "uPlot.iife.js", _MAX_BYTES)
        style = read_regular(folder / "uPlot.min.css", _MAX_BYTES).decode()
    except (OSError, ValueError):
        return None
    if hashlib.sha256(script).hexdigest() not in _TRIED or "</" in style:
        return None
    return UPlot(script.decode(), style)
