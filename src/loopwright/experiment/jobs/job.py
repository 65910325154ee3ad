"""`Job`, which describes one configuration to run, and functions that compose and check jobs without torch."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Any

from omegaconf import DictConfig

from loopwright.errors import SettingError, refuse, refuse_type
from loopwright.experiment.compose.composed import Composed
from loopwright.experiment.compose.composer import Composer
from loopwright.experiment.compose.leaf_overrides import Compose, LeafError, sweep_composition
from loopwright.experiment.compose.overrides import typed_names
from loopwright.experiment.gate.hydra_tree import check_hydra_tree, override_key
from loopwright.experiment.gate.instantiate import instantiate
from loopwright.experiment.gate.references import References, expand_recorded, put_back, refuse_in_path
from loopwright.experiment.gate.targets import check_targets
from loopwright.experiment.gate.tree import TARGET, walk
from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.jobs.changes import Changes, changes_of
from loopwright.experiment.jobs.distinct_jobs import DistinctJobs, labels_of
from loopwright.experiment.jobs.job_errors import JobErrors
from loopwright.experiment.jobs.job_settings import (
    FROM_DATA,
    NAMING_GROUPS,
    JobSettings,
    check_names,
    check_sections,
    read_settings,
    without_training,
)
from loopwright.experiment.jobs.metric_modes import settle_modes
from loopwright.experiment.jobs.typed_lengths import LENGTHS, settle_lengths

CHOSEN = ("experiment", "model", "data")  # groups whose chosen options a run records
MAX_JOBS = 10_000  # of a sweep
_MOST_FAILURES = 20  # number of wrong jobs that Hydra composes; the jobs after them are not checked


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One configuration to run.

    Args:
        number: index of the job in its sweep, from 0.
        overrides: overrides that this job applies to its configuration.
        config: resolved configuration. Each ``_target_`` has been checked.
        references: strings of ``config`` that contain values of environment variables, and the text to record for each.
        settings: checked top-level values of the configuration.
        directory: typed directory of the run or the sweep; None if the user typed no directory.
        label: overrides that distinguish this job from the other jobs of its sweep.
        loop: loop of the job if Loopwright defines its class; None: the loop is built later.
        device: device settings; None until `loopwright.experiment.jobs.check.settle` has built them.
        make_source: function that returns `source`; None for a recorded configuration.
        chosen: for each group in `CHOSEN`, the name of the chosen option; None where no option is chosen or known.
        num_threads: number of threads for CPU operations; 0 until `loopwright.experiment.jobs.check.settle` decides it.
        located: sections of the configuration of a resumed run, with absolute paths. The objects of the job are built
            from these sections. The run records ``config``, which contains the relative paths.
        notes: lines about settings, such as a length of training that another length replaced. The plan contains these
            lines.
        changes: settings that differ from the configuration of the experiment.
        chosen_in_model: names in `FROM_DATA` that an override or a file of the user sets, or that another setting
            reads. Values computed from the data do not replace the values of these settings.
    """

    number: int
    overrides: tuple[str, ...]
    config: dict[str, Any]
    settings: JobSettings
    directory: str | None
    label: str
    loop: object = None
    device: object = None
    make_source: Callable[[], DictConfig] | None = None
    chosen: Mapping[str, str | None] = field(default_factory=lambda: chosen_in({}))
    num_threads: int = 0
    located: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    references: References = field(default_factory=dict)
    chosen_in_model: frozenset[str] = frozenset()
    changes: Changes = field(default_factory=dict)

    @property
    def source(self) -> DictConfig | None:
        """Configuration that Hydra composed, with unresolved interpolations; None for a recorded configuration."""
        return None if self.make_source is None else self.make_source()

    @property
    def recorded(self) -> dict[str, Any]:
        """Configuration that the run records. It contains references instead of the values of environment variables."""
        recorded: dict[str, Any] = put_back(self.config, self.references)
        return recorded

    @property
    def built_from(self) -> dict[str, Any]:
        """Configuration from which the objects of the job are built."""
        return {**self.config, **self.located}


def compose_jobs(
    composer: Composer, jobs: Sequence[Sequence[str]], trust: Trust, *, finds_changes: bool = True
) -> list[Job]:
    """Compose each job, and carry out the checks that need no torch.

    The jobs share equal sections of their configurations, which therefore must not be changed in place.

    Args:
        composer: composer of the configurations.
        jobs: overrides of each job.
        trust: packages that the user trusts.
        finds_changes: whether to compare each job with its experiment. Otherwise, `Job.changes` is empty.

    Raises:
        SettingError: for wrong settings. If there are several jobs, the message names the problems of all jobs, and the
            numbers of the jobs where not all jobs have the problem. Also raised for two jobs with equal configurations,
            and for more than 10,000 jobs.
    """
    if len(jobs) > MAX_JOBS:
        raise SettingError("-m", f": expected at most {MAX_JOBS:,} jobs, given {len(jobs):,}.")
    naming_groups = [group for group in NAMING_GROUPS if len({_typed(group, overrides) for overrides in jobs}) == 1]
    in_full = partial(composer.compose, naming_groups=naming_groups)
    composition = sweep_composition(composer, in_full, jobs, naming_groups)
    make = _JobMaker(composer, trust, composition, in_full, finds_changes=finds_changes)
    labels = labels_of(jobs)
    errors, distinct, made = JobErrors(), DistinctJobs(), []
    num_checked = 0
    for number, overrides in enumerate(jobs):
        num_checked += 1
        try:
            job = make.job(number, overrides, labels[number])
        except SettingError as error:
            errors.add(number, labels[number], error)
            if make.num_failures >= _MOST_FAILURES:
                break
        else:
            made.append(replace(job, config=distinct.add(number, job.config)))
    errors.raise_found(num_checked, len(jobs))
    distinct.refuse_equal(jobs)
    return made


class _JobMaker:
    """Makes jobs from overrides.

    Args:
        composer: composer of the configurations.
        trust: packages that the user trusts.
        compose: function that composes the configuration of a job. If it raises an exception, or if the configuration
            is refused, ``in_full`` composes the configuration again.
        in_full: function with which Hydra composes the configuration of a job.
        finds_changes: whether to compare each job with its experiment.
    """

    def __init__(
        self, composer: Composer, trust: Trust, compose: Compose, in_full: Compose, *, finds_changes: bool
    ) -> None:
        self._finds_changes = finds_changes
        self.num_failures = 0  # number of jobs that were composed by ``in_full`` and refused
        self._composer, self._trust = composer, trust
        self._compose, self._in_full = compose, in_full
        self._pristine: dict[str, Any] | None = None  # result of `Composer.pristine`, once it is needed
        self._known: dict[str, SettingError] = {}  # by messages of ``compose``: errors of ``in_full``
        self._hydra: object = None  # the last ``hydra`` node that was checked

    def job(self, number: int, overrides: Sequence[str], label: str) -> Job:
        """Compose and check a job.

        Raises:
            SettingError: for a wrong setting. The message does not name the job.
        """
        first: Exception | None = None
        if self._compose is not self._in_full:
            try:
                return self._make(self._compose(overrides), number, label)
            except Exception as error:  # noqa: BLE001  (`in_full` raises the error that the user sees)
                if str(error) in self._known:
                    raise self._known[str(error)].with_traceback(None) from None
                first = error
        try:
            return self._make(self._in_full(overrides), number, label)
        except SettingError as error:
            self.num_failures += 1
            if isinstance(first, LeafError) or (isinstance(first, SettingError) and str(first) == str(error)):
                self._known[str(first)] = error
            raise

    def _make(self, composed: Composed, number: int, label: str) -> Job:
        if composed.hydra is not self._hydra:
            if self._composer.may_change_hydra(composed.overrides):
                self._pristine = self._pristine or self._composer.pristine()
                check_hydra_tree(composed.hydra, self._pristine, composed.overrides)
            _check_verbose(composed.hydra["verbose"])
            self._hydra = composed.hydra
        job = _check_config(
            composed.config,
            self._trust,
            references=composed.references,
            number=number,
            overrides=composed.overrides,
            used=composed.interpolated,
            directory=composed.directory,
            label=label,
            make_source=composed.make_source,
            choices=composed.hydra["runtime"]["choices"],
            find_own=partial(self._composer.set_in_own_files, composed.overrides, "loop", LENGTHS),
        )
        changes = changes_of(self._composer, composed) if self._finds_changes else {}
        return replace(job, chosen_in_model=_chosen_in_model(self._composer, composed), changes=changes)


def _chosen_in_model(composer: Composer, composed: Composed) -> frozenset[str]:
    typed = typed_names(_about("model", composed.overrides), "model", FROM_DATA)
    own = composer.set_in_own_files(composed.overrides, "model", FROM_DATA)
    # Settings with an interpolation such as ${model.in_features} already contain the composed value.
    read = [name for name in FROM_DATA if any(re.search(rf"\b{name}\b", text) for text in composed.interpolations)]
    return frozenset((*typed, *own, *read))


def _about(section: str, overrides: Sequence[str]) -> list[str]:
    """Return the overrides of a section and of the values in it."""
    return [word for word in overrides if override_key(word).partition(".")[0] == section]


def make_recorded_job(config: dict[str, Any], overrides: Sequence[str], trust: Trust) -> Job:
    """Return a job with a recorded configuration, after all checks of `compose_jobs` except the checks of Hydra's tree.

    Raises:
        SettingError: for a wrong setting.
    """
    config, references = expand_recorded(config, trust.variables)
    return _check_config(config, trust, references=references, overrides=overrides)


def _check_config(
    config: dict[str, Any],
    trust: Trust,
    *,
    references: References,
    overrides: Sequence[str],
    number: int = 0,
    used: frozenset[str] = frozenset(),
    directory: str | None = None,
    label: str = "",
    make_source: Callable[[], DictConfig] | None = None,
    choices: Mapping[str, Any] = MappingProxyType({}),
    find_own: Callable[[], Mapping[str, str]] | None = None,
) -> Job:
    if ("name",) in references:
        raise refuse_in_path("name")
    config, notes = settle_lengths(without_training(config, overrides), _about("loop", overrides), find_own)
    check_targets(config, trust)
    config = settle_modes(config)
    check_names(config, used, overrides)
    check_finite(config)
    settings = read_settings(config)
    check_sections(config, choices)
    node = config["loop"]
    is_own = isinstance(node, dict) and str(node.get(TARGET)).startswith("loopwright.")
    return Job(
        number=number,
        overrides=tuple(overrides),
        config=config,
        references=references,
        settings=settings,
        directory=directory,
        label=label,
        # Loopwright's loops need no torch. Building a loop here reports its errors before the slow import of torch.
        loop=instantiate(node, trust, "loop") if is_own else None,
        make_source=make_source,
        notes=notes,
        chosen=chosen_in(choices),
    )


def chosen_in(choices: object) -> dict[str, str | None]:
    """Return the chosen option of each group in `CHOSEN`, or None. A recorded summary may contain any ``choices``."""
    known = choices if isinstance(choices, Mapping) else {}
    options = {group: known.get(group) for group in CHOSEN}
    return {group: option if isinstance(option, str) else None for group, option in options.items()}


def _check_verbose(value: object) -> None:
    """Refuse a wrong value of ``hydra.verbose``. Without this check, Hydra would raise an AssertionError."""
    names = value if isinstance(value, list) else [value]
    if not isinstance(value, bool) and not all(isinstance(name, str) and name for name in names):
        raise refuse_type("hydra.verbose", value, "true, false, or names of Python loggers")


def _typed(group: str, overrides: Sequence[str]) -> tuple[str, ...]:
    """Return the overrides that choose an option of a group."""
    return tuple(word for word in overrides if override_key(word) == group)


def check_finite(config: Mapping[str, Any]) -> None:
    """Refuse infinite numbers and NaN at any depth of a configuration."""
    for path, value in walk(dict(config)):
        if isinstance(value, float) and not math.isfinite(value):
            raise refuse(path, value, "a finite number")
