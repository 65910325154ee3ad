"""`Job`, which describes one configuration to run, and functions that compose and check jobs without torch."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from omegaconf import DictConfig, OmegaConf

from loopwright.errors import SettingError, refuse, refuse_type
from loopwright.experiment.compose.composer import Composed, Composer
from loopwright.experiment.compose.overrides import typed_names
from loopwright.experiment.gate.hydra_tree import check_hydra_tree, override_key
from loopwright.experiment.gate.instantiate import instantiate
from loopwright.experiment.gate.references import References, expand_recorded, put_back, refuse_in_path
from loopwright.experiment.gate.targets import check_targets
from loopwright.experiment.gate.tree import TARGET, walk
from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.jobs.job_settings import (
    JobSettings,
    check_names,
    check_sections,
    read_settings,
    without_training,
)
from loopwright.experiment.jobs.metric_modes import settle_modes
from loopwright.experiment.jobs.typed_lengths import LENGTHS, settle_lengths

# Groups whose typed option becomes a word of the run's name, if all jobs of a sweep have this option.
_NAMING_GROUPS = ("data", "model")
# Settings of the shipped models that the data can determine.
FROM_DATA = (
    "in_features",
    "in_channels",
    "image_size",
    "num_classes",
    "num_targets",
    "target_deviation",
    "context_length",
    "vocab_size",
)
CHOSEN = ("experiment", "model", "data")  # groups whose chosen options a run records


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
        source: configuration that Hydra composed, with unresolved interpolations; None for a recorded configuration.
        chosen: for each group in `CHOSEN`, the name of the chosen option; None where no option is chosen or known.
        num_threads: number of threads for CPU operations; 0 until `loopwright.experiment.jobs.check.settle` decides it.
        located: sections of the configuration of a resumed run, with absolute paths. The objects of the job are built
            from these sections. The run records ``config``, which contains the relative paths.
        notes: lines about settings, such as a length of training that another length replaced. The plan contains these
            lines.
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
    source: DictConfig | None = None
    chosen: Mapping[str, str | None] = field(default_factory=lambda: chosen_in({}))
    num_threads: int = 0
    located: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    references: References = field(default_factory=dict)
    chosen_in_model: frozenset[str] = frozenset()

    @property
    def recorded(self) -> dict[str, Any]:
        """Configuration that the run records. It contains references instead of the values of environment variables."""
        recorded: dict[str, Any] = put_back(self.config, self.references)
        return recorded

    @property
    def built_from(self) -> dict[str, Any]:
        """Configuration from which the objects of the job are built."""
        return {**self.config, **self.located}


def compose_jobs(composer: Composer, jobs: Sequence[Sequence[str]], trust: Trust) -> list[Job]:
    """Compose each job, and carry out the checks that need no torch.

    Raises:
        SettingError: for the first job with a wrong setting. If there are several jobs, the message names the job.
    """
    pristine = composer.pristine()
    made = []
    naming_groups = [group for group in _NAMING_GROUPS if len({_typed(group, overrides) for overrides in jobs}) == 1]
    for number, overrides in enumerate(jobs):
        try:
            composed = composer.compose(overrides, naming_groups)
            check_hydra_tree(composed.hydra, pristine, composed.overrides)
            _check_verbose(composed.hydra["verbose"])
            job = _check_config(
                composed.config,
                trust,
                references=composed.references,
                number=number,
                overrides=composed.overrides,
                used=composed.interpolated,
                directory=composed.directory,
                label=_label(overrides, jobs),
                source=composed.source,
                find_own=partial(composer.set_in_own_files, composed.overrides, "loop", LENGTHS),
            )
            made.append(replace(job, chosen_in_model=_chosen_in_model(composer, composed)))
        except SettingError as error:
            if len(jobs) == 1:
                raise
            raise SettingError(error.setting, f"{error.problem} (job {number}: {_label(overrides, jobs)})") from None
    return made


def _chosen_in_model(composer: Composer, composed: Composed) -> frozenset[str]:
    typed = typed_names(composed.overrides, "model", FROM_DATA)
    own = composer.set_in_own_files(composed.overrides, "model", FROM_DATA)
    # Settings with an interpolation such as ${model.in_features} already contain the composed value.
    text = OmegaConf.to_yaml(composed.source)
    read = [name for name in FROM_DATA if re.search(rf"\$\{{[^}}]*\b{name}\b", text)]
    return frozenset((*typed, *own, *read))


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
    source: DictConfig | None = None,
    find_own: Callable[[], Mapping[str, str]] | None = None,
) -> Job:
    if ("name",) in references:
        raise refuse_in_path("name")
    config, notes = settle_lengths(without_training(config, overrides), overrides, find_own)
    check_targets(config, trust)
    config = settle_modes(config)
    check_names(config, used, overrides)
    check_finite(config)
    settings = read_settings(config)
    choices = {} if source is None else source.hydra.runtime.choices
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
        source=source,
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


def _label(overrides: Sequence[str], jobs: Sequence[Sequence[str]]) -> str:
    """Return the overrides that at least one job lacks. If there are none, return all except Hydra's settings."""
    own = [word for word in overrides if not all(word in job for job in jobs)]
    return " ".join(own or [word for word in overrides if not word.startswith("hydra")]) or "as configured"


def check_finite(config: Mapping[str, Any]) -> None:
    """Refuse infinite numbers and NaN at any depth of a configuration."""
    for path, value in walk(dict(config)):
        if isinstance(value, float) and not math.isfinite(value):
            raise refuse(path, value, "a finite number")
