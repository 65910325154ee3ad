"""`read_settings` and `read_sweep`: read what a command line with ``-m`` asks for, without torch."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from loopwright.errors import SettingError
from loopwright.experiment.compose.composer import Composer
from loopwright.experiment.compose.overrides import parse_overrides, sweep_words
from loopwright.experiment.jobs.recorded import apply_overrides
from loopwright.experiment.sweep.factors import SweptLine, read_swept_line, without_globs
from loopwright.experiment.sweep.index import Factor, SweepIndex
from loopwright.experiment.sweep.search.proposals import check_space
from loopwright.experiment.sweep.settings import SweepSettings, read_sweep_settings

_MISSING = object()
_HYDRA_SETTINGS: Mapping[str, str] = {
    "hydra/launcher": "sweep.launcher=process, or sweep.launcher=slurm",
    "hydra.launcher": "the settings under sweep, such as sweep.num_parallel=4",
    "hydra/sweeper": "sweep.search=tpe, or sweep.search=random",
    "hydra.sweeper": "the settings under sweep, such as sweep.num_proposals=20",
}

_NOT_TO_BE_CHANGED = ("search", "space", "seed")  # the proposals of a sweep depend on these settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """What a command line with ``-m`` asks for.

    Attributes:
        settings: settings of the sweep.
        swept: divided overrides of the jobs.
        overrides: all overrides as typed.
        jobs: overrides of the first jobs. Of a search, these are the jobs with the first values of each factor.
        own_values: values of the factors in the configuration without these overrides.
    """

    settings: SweepSettings
    swept: SweptLine
    overrides: tuple[str, ...]
    jobs: list[list[str]]
    own_values: Mapping[str, Any]

    @property
    def num_jobs(self) -> int:
        """Number of jobs of the whole sweep. A search in a small space may end earlier."""
        proposals = self.settings.num_proposals
        return len(self.jobs) if proposals is None else proposals * max(1, len(self.swept.seeds))


def read_settings(composer: Composer, overrides: Sequence[str]) -> SweepSettings:
    """Read the settings of a sweep.

    Raises:
        SettingError: for a wrong setting of the sweep.
    """
    for word in overrides:
        key = word.partition("=")[0].lstrip("+~")
        for name, remedy in _HYDRA_SETTINGS.items():
            if key == name or key.startswith(f"{name}."):
                raise SettingError(word, f": Loopwright runs the jobs itself; use {remedy}.")
    own, _ = sweep_words(overrides)
    for word in own:
        if word.startswith("~"):
            raise SettingError(word, ": a setting of the sweep cannot be removed; set a value instead.")
    return read_sweep_settings(composer.sweep_settings(overrides))


def read_sweep(composer: Composer, overrides: Sequence[str], settings: SweepSettings) -> Sweep:
    """Read the factors and the first jobs of a sweep.

    Args:
        composer: composer of the configuration.
        overrides: all overrides as typed.
        settings: settings of the sweep, from `read_settings`.

    Raises:
        SettingError: for an empty sweep, or an interval without a search.
    """
    _, words = sweep_words(overrides)
    swept = read_swept_line(words, settings.space, composer.loader)
    check_space(swept.factors, settings.search)
    if settings.is_search:
        if not swept.factors:
            raise SettingError("sweep.search", f"={settings.search}: expected at least one swept setting.")
        jobs = swept.jobs_of({factor.key: _first_value(factor) for factor in swept.factors})
    else:
        jobs = swept.grid(composer.loader)
    return Sweep(
        settings=settings,
        swept=swept,
        overrides=tuple(overrides),
        jobs=jobs,
        own_values=own_values_of(composer, swept),
    )


def own_values_of(composer: Composer, swept: SweptLine) -> dict[str, Any]:
    """Return the values of the factors in the configuration without overrides of them."""
    if not swept.factors:
        return {}
    found = own_values_at(composer, swept.overrides, [factor.key for factor in swept.factors])
    return {key: value for key, value in found.items() if value is not None}


def own_values_at(composer: Composer, overrides: Sequence[str], keys: Sequence[str]) -> dict[str, Any]:
    """Return the values of settings in the configuration with the overrides that are not swept.

    A setting that the configuration lacks is left out. The result is empty if the configuration cannot be composed.
    """
    fixed = [each for each in parse_overrides(list(overrides)) if not each.is_sweep_override()]
    try:
        composed = composer.compose([str(each.input_line) for each in fixed])
    except SettingError:  # for example, an override of a key that only a swept option has
        return {}
    choices, found = composed.source.hydra.runtime.choices, {}
    for key in keys:
        value = choices[key] if key in choices else _value_at(composed.config, key)
        if not isinstance(value, Mapping):
            found[key] = value
    return {key: value for key, value in found.items() if value is not _MISSING}


def _value_at(config: Mapping[str, Any], key: str) -> Any:
    node: Any = config
    for part in key.split("."):
        node = node.get(part, _MISSING) if isinstance(node, Mapping) else _MISSING
    return node


def _first_value(factor: Factor) -> Any:
    """Return a value of a factor with which a configuration can be checked before a search begins."""
    return factor.low if factor.values is None else factor.values[0]


def recorded_sweep(index: SweepIndex) -> Sweep:
    """Return what the command line of a recorded sweep asked for.

    Raises:
        SettingError: if the recorded overrides or settings are not accepted.
    """
    settings = read_sweep_settings(index.settings)
    _, words = sweep_words(index.overrides)
    swept = read_swept_line(without_globs(words, index.factors), settings.space)
    return Sweep(settings=settings, swept=swept, overrides=index.overrides, jobs=[], own_values=dict(index.own_values))


def config_dir_of(index: SweepIndex) -> str | None:
    """Return the configuration directory of a recorded sweep; None if the sweep has none.

    A relative path refers to the current directory, or to the directory in which the sweep was started.
    """
    if index.config_dir is None or Path(index.config_dir).is_dir():
        return index.config_dir
    return str(Path(index.cwd, index.config_dir))


def changed_settings(index: SweepIndex, overrides: Sequence[str]) -> SweepIndex:
    """Return the index with changed settings of the sweep.

    Args:
        index: index of a recorded sweep.
        overrides: overrides such as ``sweep.num_parallel=2``.

    Raises:
        SettingError: for a wrong setting, and for a change of the search.
    """
    node: dict[str, Any] = {"sweep": copy.deepcopy(dict(index.settings))}
    apply_overrides(node, overrides)
    before, settings = read_sweep_settings(index.settings), read_sweep_settings(node["sweep"])
    for name in _NOT_TO_BE_CHANGED:
        if getattr(settings, name) != getattr(before, name):
            given = getattr(settings, name)
            raise SettingError(f"sweep.{name}", f"={given}: a sweep keeps its search; start a new sweep.")
    return replace(index, settings=settings.as_json())
