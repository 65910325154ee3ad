"""Parts that several pages use: states, changed settings, and the controls of the charts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loopwright.records.report.builder import Element, element
from loopwright.records.report.masks import HIDDEN, is_secret

MAX_PANELS = 60
# Word, mark and class of each state. The mark and the word show the state without colour.
STATES = {
    "completed": ("✓ completed", "good"),
    "stopped": ("✓ stopped", "good"),
    "running": ("▸ running", "warn"),
    "interrupted": ("‖ interrupted", "warn"),
    "lost": ("? lost", "warn"),
    "failed": ("✗ failed", "bad"),
    "unreadable": ("? unreadable", "bad"),
}


def controls(*, has_samples: bool = False, has_hours: bool = False) -> Element:
    """Return the controls of the interactive charts. Pages without scripts do not show them."""
    units = ["steps", *(["samples"] if has_samples else []), *(["hours"] if has_hours else [])]
    axis = element("select", [element("option", unit, value=unit) for unit in units], id="x-axis")
    weights = [("off", "0"), ("light", "0.6"), ("medium", "0.9"), ("strong", "0.98")]
    smoothing = element("select", [element("option", name, value=weight) for name, weight in weights], id="smoothing")
    log = element("input", type="checkbox", id="log")
    return element(
        "div",
        element("label", "Horizontal axis ", axis),
        element("label", "Smoothing ", smoothing),
        element("label", log, " logarithmic values"),
        element("span", "Drag over a chart to zoom, double-click to reset.", class_="pale"),
        class_="controls needs-plot",
    )


def left_out(num_panels: int) -> Element | None:
    """Return a note about panels that the page does not contain; None if it contains all."""
    more = num_panels - MAX_PANELS
    return element("p", f"{more} more metrics are in metrics.jsonl.", class_="pale") if more > 0 else None


def state_badge(state: str) -> Element:
    """Return the state of a run as a word with a mark and a colour."""
    word, kind = STATES.get(state, (state, "pale"))
    return element("span", word, class_=f"state {kind}")


def change_texts(changes: Mapping[str, tuple[Any, Any]]) -> list[str]:
    """Return the changed settings as overrides. Secret values are masked."""
    return [f"{path}={HIDDEN if is_secret(path) else value_text(value)}" for path, (_, value) in changes.items()]


def value_text(value: object) -> str:
    """Return a value of a configuration as it is typed in an override."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(value_text, value))}]"
    return str(value)
