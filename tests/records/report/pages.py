"""`Page`, a parsed HTML page, and `make_run`, which writes the files of a run without training."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

EMPTY = {"br", "col", "hr", "img", "input", "link", "meta"}
RUN = "2026-12-01_09-15-05_c623ba"


class Page(HTMLParser):
    """The elements, attributes and texts of a page.

    Attributes:
        tags: names of all elements.
        attributes: pairs of a name and a value.
        scripts: attributes and contents of the script elements.
        text: all texts outside scripts and styles.
        is_balanced: whether each element is closed in the right order.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.scripts: list[tuple[Mapping[str, str | None], str]] = []
        self.text = ""
        self.is_balanced = True
        self._open: list[str] = []
        self.feed(text)
        self.close()
        self.is_balanced &= not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag == "script":
            self.scripts.append((dict(attrs), ""))
        if tag not in EMPTY:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        self.is_balanced &= bool(self._open) and self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "script":
            self.scripts[-1] = self.scripts[-1][0], self.scripts[-1][1] + data
        elif not self._open or self._open[-1] != "style":
            self.text += data

    @property
    def data(self) -> Any:
        """Content of the JSON block."""
        (found,) = [text for attributes, text in self.scripts if attributes.get("type") == "application/json"]
        return json.loads(found)


def make_run(
    outputs: Path,
    metrics: Mapping[str, Sequence[tuple[int, float]]],
    *,
    folder: str = RUN,
    files: Mapping[str, str] | None = None,
    **summary: Any,
) -> Path:
    """Write a run directory.

    Args:
        outputs: directory that will contain ``digits/FOLDER``.
        metrics: steps and values by the name of the metric.
        folder: name of the run directory.
        files: texts of further files by name.
        summary: entries of ``summary.json``.
    """
    directory = outputs / "digits" / folder
    directory.mkdir(parents=True)
    last = {name: points[-1][1] for name, points in metrics.items()}
    (directory / "summary.json").write_text(json.dumps({"state": "completed", "metrics": last, **summary}))
    lines = [json.dumps({"step": s, "name": n, "value": v}) for n, points in metrics.items() for s, v in points]
    (directory / "metrics.jsonl").write_text("\n".join(lines))
    for name, text in (files or {}).items():
        (directory / name).write_text(text)
    return directory
