"""`LeafComposer`, which composes the many jobs of a sweep faster than `Composer`.

Jobs with equal group choices share one composition by Hydra. The overrides of single values are then applied to a copy
of the composed configuration, as Hydra applies them, and the result is resolved again.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from hydra.conf import JobConf
from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from loopwright.errors import SettingError
from loopwright.experiment.compose.composed import (
    DIRECTORIES,
    Composed,
    directory_in,
    extend_name,
    interpolations_in,
    resolved,
    take_sweep,
    task_of,
)
from loopwright.experiment.compose.composer import Composer
from loopwright.experiment.compose.overrides import parse_overrides
from loopwright.experiment.console.messages import complain
from loopwright.experiment.gate.hydra_tree import override_key

LEAST_JOBS = 50  # number of jobs from which on `sweep_composition` uses a `LeafComposer`
_NUM_SAMPLES = 20  # random jobs that are also composed in full, in addition to the first and the last job
_KEY = re.compile(r"[A-Za-z_]\w*(\.\w+)*")
_SCALARS = (str, int, float, bool, type(None))

_Leaves = Sequence[tuple[str, Any]]  # keys and values of overrides of single values
Compose = Callable[[Sequence[str]], Composed]


class LeafError(Exception):
    """Raised if a job must be composed in full. Jobs with an equal message have the same mistakes."""


@dataclass(slots=True)
class _Base:
    """Composition that several jobs share.

    Attributes:
        whole: configuration composed with all overrides except the overrides of single values. It is not changed.
        task: copy without the ``hydra`` node. The values of the current job are set in it.
        name: value of ``name`` in ``whole``, with unresolved interpolations; None if the jobs set ``name``.
        hydra: ``hydra`` node as nested dicts.
        sweep: resolved node ``sweep``.
        interpolations: results of `interpolations_in`; None before the first job.
    """

    whole: DictConfig
    task: DictConfig
    name: str | None
    hydra: dict[str, Any]
    sweep: dict[str, Any]
    interpolations: tuple[frozenset[str], frozenset[str]] | None = None


class LeafComposer:
    """Composes the jobs of one sweep. Group choices are composed once for each combination.

    Args:
        composer: composer of the configurations.
        naming_groups: groups whose typed options are appended to ``name``; see `Composer.compose`.
    """

    def __init__(self, composer: Composer, naming_groups: Sequence[str] = ()) -> None:
        self._composer = composer
        self._naming_groups = tuple(naming_groups)
        self._groups = composer.groups
        self._parsed: dict[str, Override] = {}
        self._bases: dict[tuple[tuple[str, ...], tuple[str, ...]], _Base | None] = {}

    def compose(self, overrides: Sequence[str]) -> Composed:
        """Return what `Composer.compose` would return. In ``hydra.overrides``, overrides of single values are missing.

        Raises:
            SettingError: for a value that cannot be resolved. The message may differ from the message of `Composer`.
            LeafError: for overrides that cannot be applied, and for overrides that only Hydra can apply.
            Exception: any exception of Hydra or OmegaConf.
        """
        parsed = [self._parse(word) for word in overrides]
        leaves = [each for each in parsed if is_leaf(each, self._groups)]
        rest = [each for each in parsed if each not in leaves]
        known = (tuple(str(each.input_line) for each in rest), tuple(each.key_or_group for each in leaves))
        if known not in self._bases:
            self._bases[known] = None  # also if an exception is raised
            self._bases[known] = self._make_base(known[0], known[1], rest)
        base = self._bases[known]
        if base is None:
            raise LeafError(" ".join(overrides))
        try:
            return self._apply(base, parsed, [(each.key_or_group, each.value()) for each in leaves])
        except Exception:
            base.task = _closed_task(base.whole)  # some values of this job may have been set in the previous copy
            raise

    def _parse(self, word: str) -> Override:
        if word not in self._parsed:
            (self._parsed[word],) = parse_overrides([word])
        return self._parsed[word]

    def _make_base(self, words: Sequence[str], keys: Sequence[str], rest: Sequence[Override]) -> _Base | None:
        """Return the composition that jobs share. Return None if their values must be applied by Hydra."""
        others = [each.key_or_group for each in rest if not _is_choice(each, self._groups)]
        if any(_overlaps(key, other) for i, key in enumerate(keys) for other in (*others, *keys[:i])):
            return None  # the order of the overrides decides the result
        whole = self._composer.compose_whole(words)
        sweep = take_sweep(whole)
        task = _closed_task(whole)
        if any(OmegaConf.is_dict(OmegaConf.select(task, key, throw_on_resolution_failure=False)) for key in keys):
            return None  # the values would replace mappings
        raw = OmegaConf.to_container(task, resolve=False)
        assert isinstance(raw, dict)
        name = None if "name" in keys or not isinstance(raw.get("name"), str) else raw["name"]
        return _Base(whole=whole, task=task, name=name, hydra=self._composer.hydra_part(whole), sweep=sweep)

    def _apply(self, base: _Base, parsed: Sequence[Override], leaves: _Leaves) -> Composed:
        """Set the values of a job in ``base.task``, and resolve it."""
        overrides = [str(each.input_line) for each in parsed]
        allowed = self._composer.allowed
        if base.name is not None:
            base.task.name = base.name
        failed = _set(base.task, leaves)
        if failed:
            typed = [str(each.input_line) for each in parsed if each.key_or_group in failed]
            others = [word for word in overrides if not is_leaf(self._parse(word), self._groups)]
            raise LeafError(f"{' '.join(typed)} after {' '.join(others)}")
        extend_name(base.task, base.hydra["runtime"]["choices"], overrides, self._naming_groups, allowed)
        config, references = resolved(base.task, allowed)
        if base.interpolations is None:
            base.interpolations = interpolations_in(base.task, base.whole.hydra)
        words = tuple(str(each.input_line) for each in parsed if not each.is_hydra_override())
        make_source = partial(_make_source, base.whole, leaves, words, overrides, self._naming_groups, allowed)
        typed = [word for word in overrides if override_key(word) in DIRECTORIES]
        source = make_source() if any("${" in word for word in typed) else base.whole
        return Composed(
            overrides=tuple(overrides),
            config=config,
            references=references,
            interpolations=base.interpolations[0],
            interpolated=base.interpolations[1],
            hydra=base.hydra,
            directory=directory_in(source, typed, allowed),
            sweep=base.sweep,
            make_source=make_source,
        )


def is_leaf(override: Override, groups: Container[str]) -> bool:
    """Return whether an override only replaces a single value or a list, such as ``optimizer.lr=0.1``."""
    key = override.key_or_group
    is_change = override.type == OverrideType.CHANGE and override.package is None and not override.is_sweep_override()
    is_task = _KEY.fullmatch(key) is not None and key not in groups and key.split(".")[0] != "hydra"
    return is_change and is_task and _is_plain(override.value())


def sweep_composition(
    composer: Composer,
    in_full: Compose,
    jobs: Sequence[Sequence[str]],
    naming_groups: Sequence[str],
    least_jobs: int = LEAST_JOBS,
) -> Compose:
    """Return a function that composes a job of a sweep from its overrides.

    With fewer than ``least_jobs`` jobs, it is ``in_full``. Otherwise, it is `LeafComposer.compose`. Then the first, the
    last and 20 random jobs are composed in both ways. If the results differ, a warning is printed, and the function is
    ``in_full``.

    Args:
        composer: composer of the configurations.
        in_full: function with which Hydra composes the configuration of a job.
        jobs: overrides of each job.
        naming_groups: groups whose typed options are appended to ``name``; see `Composer.compose`.
        least_jobs: number of jobs from which on a `LeafComposer` is used.
    """
    if len(jobs) < least_jobs:
        return in_full
    leaf_composer = LeafComposer(composer, naming_groups)
    drawn = random.Random(len(jobs)).sample(range(len(jobs)), min(_NUM_SAMPLES, len(jobs)))
    for number in sorted({0, len(jobs) - 1, *drawn}):
        if not _agrees(leaf_composer.compose, in_full, jobs[number]):
            problem = f"two ways to compose job {number} ({' '.join(jobs[number])}) gave different configurations"
            complain(f"loopwright: {problem}; Hydra composes every job, which is slow. Please report this line.")
            return in_full
    return leaf_composer.compose


def _agrees(fast: Compose, in_full: Compose, overrides: Sequence[str]) -> bool:
    """Return whether two functions compose the same job, or the first one raises an exception."""
    try:
        first = fast(overrides)
    except Exception:  # noqa: BLE001  (such a job is composed in full)
        return True
    try:
        second = in_full(overrides)
    except SettingError:
        return False
    return _compared(first) == _compared(second)


def _compared(composed: Composed) -> tuple[object, ...]:
    source = OmegaConf.to_container(composed.source, resolve=False, enum_to_str=True)
    # The text of a value also shows its type: 1, 1.0 and True are equal.
    exact = repr((composed.config, composed.references, composed.sweep, source))
    return exact, composed.overrides, composed.interpolations, composed.interpolated, composed.directory


def _make_source(
    whole: DictConfig,
    leaves: _Leaves,
    words: Sequence[str],
    overrides: Sequence[str],
    naming_groups: Sequence[str],
    allowed: Sequence[str],
) -> DictConfig:
    """Return the configuration that Hydra would compose for a job.

    Args:
        whole: configuration composed without the overrides of single values.
        leaves: overrides of single values.
        words: overrides of the job, without the overrides of Hydra's own settings.
        overrides: all overrides of the job.
        naming_groups: groups whose typed options are appended to ``name``.
        allowed: names of environment variables that the user allows configurations to read.
    """
    source = whole.copy()
    _set(source, leaves)
    extend_name(source, source.hydra.runtime.choices, overrides, naming_groups, allowed)
    source.hydra.overrides.task = list(words)
    if JobConf.override_dirname == MISSING:  # in Hydra 1.4, it is an interpolation
        separators = source.hydra.job.config.override_dirname
        listed = [word for word in words if override_key(word) not in separators.exclude_keys]
        source.hydra.job.override_dirname = separators.item_sep.join(sorted(listed)).replace("=", separators.kv_sep)
    return source


def _closed_task(whole: DictConfig) -> DictConfig:
    """Return a copy without the ``hydra`` node, to which no keys can be added."""
    task = task_of(whole)
    OmegaConf.set_struct(task, True)
    return task


def _set(config: DictConfig, leaves: _Leaves) -> list[str]:
    """Set values as Hydra does. Return the keys whose values cannot be set, because there is no such key."""
    failed = []
    for key, value in leaves:
        try:
            OmegaConf.update(config, key, value, merge=True)
        except OmegaConfBaseException:
            failed.append(key)
    return failed


def _is_plain(value: object) -> bool:
    """Return whether a value is a scalar or a list of scalars, without interpolations and missing values."""
    if isinstance(value, list):
        return all(_is_plain(each) for each in value)
    if isinstance(value, str):
        return "${" not in value and value != "???"
    return type(value) in _SCALARS and not (isinstance(value, float) and math.isnan(value))


def _is_choice(override: Override, groups: Container[str]) -> bool:
    """Return whether an override chooses an option of a group. ``model={hidden: [4]}`` sets values instead."""
    is_change = override.type == OverrideType.CHANGE
    return is_change and override.key_or_group in groups and not isinstance(override.value(), dict)


def _overlaps(key: str, other: str) -> bool:
    """Return whether one of two paths contains the other one."""
    return f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}.")
