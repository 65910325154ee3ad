"""`SweptLine`: the overrides of a sweep, divided into fixed overrides, factors and seeds."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import Glob, IntervalSweep, Override

from loopwright.errors import SettingError, refuse
from loopwright.experiment.compose.overrides import parse_overrides, split_jobs
from loopwright.experiment.sweep.index import Factor

SEED = "seed"


@dataclass(frozen=True, slots=True, kw_only=True)
class SweptLine:
    """The overrides of a sweep.

    Attributes:
        overrides: all overrides of the jobs, in the order typed; the entries of ``sweep.space`` come last.
        hydra: overrides of Hydra's own settings, which every job has.
        factors: swept settings other than the seed, in the order typed.
        seeds: seeds of the jobs; empty if the seed is not swept.
    """

    overrides: tuple[str, ...]
    hydra: tuple[str, ...]
    factors: tuple[Factor, ...]
    seeds: tuple[int, ...]

    @property
    def intervals(self) -> list[Factor]:
        """The factors that are intervals."""
        return [factor for factor in self.factors if factor.values is None]

    def grid(self, loader: ConfigLoader | None) -> list[list[str]]:
        """Return the overrides of each job of the grid, in Hydra's order: the last swept setting changes fastest.

        Raises:
            SettingError: if a factor is an interval, or if a list of values is empty.
        """
        return split_jobs([*self.hydra, *self.overrides], loader)

    def jobs_of(self, values: Mapping[str, Any]) -> list[list[str]]:
        """Return the overrides of the jobs with these values of the factors, one job for each seed."""
        return [list(words) for words in itertools.product(*self._choices(values))]

    def values_of(self, words: Sequence[str]) -> dict[str, Any]:
        """Return the values of the factors in the overrides of one job. A factor that is not overridden is left out."""
        keys = {factor.key for factor in self.factors}
        found = {key_of(override): plain_value(override) for override in parse_overrides(list(words))}
        return {key: value for key, value in found.items() if key in keys}

    def _choices(self, values: Mapping[str, Any]) -> Iterator[list[str]]:
        yield from ([word] for word in self.hydra)
        for override in parse_overrides(list(self.overrides)):
            key = key_of(override)
            if not override.is_sweep_override():
                yield [str(override.input_line)]
            elif key == SEED:
                yield [f"{SEED}={seed}" for seed in self.seeds]
            elif key in values:
                yield [word_of(key, values[key], override)]


def read_swept_line(
    overrides: Sequence[str], space: Mapping[str, str], loader: ConfigLoader | None = None
) -> SweptLine:
    """Divide the overrides of a sweep. A typed override replaces the entry of ``space`` with its key.

    Args:
        overrides: overrides as typed, without settings of the sweep.
        space: setting ``sweep.space``.
        loader: loader that lists the options of a group. Overrides with ``glob`` need it.

    Raises:
        SettingError: for an override that cannot be parsed, for a sweep over Hydra's own settings, and for seeds that
            are not whole numbers.
    """
    typed = parse_overrides(overrides, loader)
    keys = {key_of(override) for override in typed}
    added = parse_overrides([f"{key}={value}" for key, value in space.items() if key not in keys], loader)
    factors, seeds = [], []
    for override in (*typed, *added):
        if not override.is_sweep_override():
            continue
        if override.is_hydra_override():
            raise SettingError(str(override.input_line), ": Hydra's own settings cannot be swept.")
        factor = _factor(override)
        if factor.key == SEED:
            seeds = _seeds(override, factor)
        else:
            factors.append(factor)
    return SweptLine(
        overrides=tuple(str(each.input_line) for each in (*typed, *added) if not each.is_hydra_override()),
        hydra=tuple(str(each.input_line) for each in typed if each.is_hydra_override()),
        factors=tuple(factors),
        seeds=tuple(seeds),
    )


def without_globs(overrides: Sequence[str], factors: Sequence[Factor]) -> list[str]:
    """Return overrides in which each ``glob`` is replaced by the options that it selected.

    Args:
        overrides: overrides of a sweep.
        factors: factors of this sweep.
    """
    values = {factor.key: factor.values or () for factor in factors}
    words = []
    for override in parse_overrides(list(overrides)):
        word = str(override.input_line)
        if isinstance(override.value(), Glob):
            word = f"{override.get_key_element()}={','.join(map(str, values.get(key_of(override), ())))}"
        words.append(word)
    return words


def key_of(override: Override) -> str:
    """Return the key of an override as it is typed, such as ``optimizer.lr`` or ``model@encoder``."""
    return str(override.get_key_element()).lstrip("+~")


def word_of(key: str, value: Any, override: Override | None = None) -> str:
    """Return the override that sets ``key`` to a value of a factor.

    Args:
        key: key of the factor.
        value: value of the factor, as `plain_value` returns it.
        override: override that lists the values. Its own spelling of the value is used.
    """
    sign = "" if override is None else str(override.get_key_element())[: -len(key)]
    if override is not None and not override.is_interval_sweep():
        for text, each in _spelled(override):
            if each == value and type(each) is type(value):
                return f"{sign}{key}={text}"
    return f"{sign}{key}={value if isinstance(value, str) else json.dumps(value)}"


def plain_value(override: Override) -> Any:
    """Return the single value of an override as lists, mappings, words, numbers, booleans or None."""
    return _plain(override.value())


def _factor(override: Override) -> Factor:
    key = key_of(override)
    if not override.is_interval_sweep():
        return Factor(key=key, values=tuple(value for _, value in _spelled(override)))
    interval = override.value()
    assert isinstance(interval, IntervalSweep)
    low, high, is_log = interval.start, interval.end, "log" in interval.tags
    if low is None or high is None or not low < high or (is_log and low <= 0):
        expected = "two numbers, the smaller one first" + (", both above 0" if is_log else "")
        raise SettingError(str(override.input_line), f": expected {expected}.")
    return Factor(key=key, low=low, high=high, is_log=is_log, is_int=isinstance(low, int) and isinstance(high, int))


def _spelled(override: Override) -> list[tuple[str, Any]]:
    """Return each value of a list with its spelling."""
    texts = list(override.sweep_string_iterator())
    return [(text, plain_value(each)) for text, each in zip(texts, _parsed(texts), strict=True)]


def _parsed(texts: Sequence[str]) -> list[Override]:
    """Parse each text as the value of an override."""
    return [parse_overrides([f"key={text}"])[0] for text in texts]


def spelled_values(override: Override) -> list[str]:
    """Return the spelling of each value of an override, which may have one value or a list of values."""
    if not override.is_sweep_override():
        return [str(override.input_line).partition("=")[2]]
    return [text for text, _ in _spelled(override)]


def _seeds(override: Override, factor: Factor) -> list[int]:
    if factor.values is None or not all(type(value) is int and value >= 0 for value in factor.values):
        raise refuse(SEED, str(override.input_line).partition("=")[2], "whole numbers, 0 or more, such as seed=0,1,2")
    return list(factor.values)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
