"""`Panel`, the series of one quantity that are drawn together, and functions that group the metrics of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loopwright.records.series import Series

RATE = "learning rate"


@dataclass(frozen=True, slots=True)
class Panel:
    """One chart: the name of a quantity, and the series of this quantity by source, such as ``train`` or ``val``."""

    title: str
    series: Mapping[str, Series]


def panels_of(series: Mapping[str, Series]) -> list[Panel]:
    """Group series by quantity. For example, the panel of ``loss`` contains train/loss, val/loss and val/extra/loss.

    The losses come first, then the other metrics, then the learning rate.
    """
    grouped: dict[str, dict[str, Series]] = {}
    for name, one in series.items():
        source, _, key = name.rpartition("/")
        if name == "lr" or source == "lr":
            source, key = "" if name == "lr" else f"group {key}", RATE
        grouped.setdefault(key, {})[source] = one
    rank = {"loss": 0, RATE: 2}
    rates = list(grouped.get(RATE, {}).values())
    if len(rates) > 1 and all((each.steps, each.values) == (rates[0].steps, rates[0].values) for each in rates):
        grouped[RATE] = {"all groups": rates[0]}  # if all curves are equal, only one would be visible
    keys = sorted(grouped, key=lambda key: rank.get(key, 1))  # sorted() keeps the order of keys with equal ranks
    return [Panel(key, dict(sorted(grouped[key].items(), key=lambda item: item[0] != "train"))) for key in keys]


def sources_of(panels: Sequence[Panel]) -> dict[str, int]:
    """Return the colour index of each source. A source has one colour in all panels. The index of ``train`` is -1."""
    names = [source for panel in panels if panel.title != RATE for source in panel.series if source != "train"]
    return {"train": -1, **{source: index for index, source in enumerate(dict.fromkeys(names))}}
