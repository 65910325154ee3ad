"""`document`, which puts a page together: its policy, its style, its script, its data and its content."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from loopwright.records.report.builder import element, json_block, render
from loopwright.records.report.uplot import UPlot

DATA_ID = "data"
_FOLDER = Path(__file__).parent


def document(
    title: str, content: Sequence[Any], *, data: Mapping[str, Any] | None = None, uplot: UPlot | None = None
) -> str:
    """Return a page as HTML that fetches nothing.

    The policy in the page allows only the scripts that this function embeds. A browser refuses every other script, and
    every request.

    Args:
        title: title of the page.
        content: elements and lists of elements of the page.
        data: data for the script, as JSON values.
        uplot: script and style of uPlot; None: the charts are SVG only.
    """
    scripts = [*([] if uplot is None else [uplot.script]), _file("page.js")]
    styles = [*([] if uplot is None else [uplot.style]), _file("page.css")]
    digests = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src {digests}; img-src data:; base-uri 'none'"
    head = [
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=f"{policy}; form-action 'none'"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
    ]
    return "".join(
        [
            "<!doctype html>\n",
            f'<html lang="en"><head>{render(head)}',
            *(f"<style>{style}</style>" for style in styles),
            f"</head><body><main>{render(content)}</main>",
            "" if data is None else json_block(DATA_ID, data),
            *(f"<script>{script}</script>" for script in scripts),
            "</body></html>\n",
        ]
    )


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


@cache
def _file(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")
