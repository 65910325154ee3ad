"""`added_index`: adds the jobs with further values or seeds to a sweep."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from loopwright.errors import SettingError
from loopwright.experiment.compose.composer import Composer, composing
from loopwright.experiment.compose.overrides import parse_overrides, sweep_words
from loopwright.experiment.gate.masking import masking
from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.jobs.check import check_each
from loopwright.experiment.jobs.job import Job, compose_jobs
from loopwright.experiment.jobs.recorded import differences, read_recorded
from loopwright.experiment.rundir.writer import config_text
from loopwright.experiment.sweep.factors import (
    SEED,
    SweptLine,
    key_of,
    plain_value,
    read_swept_line,
    spelled_values,
    without_globs,
    word_of,
)
from loopwright.experiment.sweep.index import Group, SweepIndex
from loopwright.experiment.sweep.prepare import label_of, with_jobs
from loopwright.experiment.sweep.read_sweep import Sweep, config_dir_of, own_values_at, own_values_of, recorded_sweep

_MAX_DIFFERENCES = 5


def added_index(directory: Path, index: SweepIndex, words: Sequence[str], trust: Trust) -> tuple[SweepIndex, list[int]]:
    """Compose and check the jobs with further values, and write their directories.

    The existing jobs are composed again. If the configuration of an existing job has changed, for example because a
    file in ``conf/`` was edited, old and new results cannot be compared. Then no job is added.

    Args:
        directory: directory of the sweep.
        index: index of the sweep.
        words: overrides with the further values, such as ``seed=3,4``.
        trust: packages that the user trusts.

    Returns:
        The new index, and the numbers of the added jobs.

    Raises:
        SettingError: for wrong overrides, if no job is new, and if an existing job has changed.
    """
    sweep = recorded_sweep(index)
    if sweep.settings.is_search:
        remedy = "loopwright sweep resume DIR sweep.num_proposals=N"
        raise SettingError("sweep add", f": the jobs of a search are proposed; for more of them use {remedy}.")
    if not words:
        raise SettingError("sweep add", ": expected further values, such as seed=3,4 or optimizer.lr=0.01.")
    settings, _ = sweep_words(index.overrides)
    recorded = [*sweep.swept.hydra, *sweep.swept.overrides]  # includes the values in the setting `sweep.space`
    with composing(config_dir_of(index), trust.variables) as composer:
        own = _own_words(composer, recorded, words)
        overrides = _merged([*recorded, *own], words)
        swept = read_swept_line(overrides, sweep.settings.space, composer.loader)
        groups = tuple(_with_factors(group, index, swept, own) for group in index.groups)
        known = {_identity(groups[job.group].values, job.seed) for job in index.jobs}
        seed = index.jobs[0].seed  # seed of all jobs, if no override sets the seed
        further = [each for each in swept.grid(composer.loader) if _identity_of(each, swept, seed) not in known]
        if not further:
            raise SettingError(" ".join(words), ": the sweep has these jobs already; nothing is added.")
        before = [list(job.overrides) for job in index.jobs]
        jobs = compose_jobs(composer, [*before, *further], trust)
        own_values = own_values_of(composer, swept)
    checked = list(check_each(jobs, trust, builds_trusted=False))
    _refuse_changes(directory, index, [job for job, _ in checked[: len(before)]], trust)
    index = replace(index, factors=swept.factors, overrides=(*settings, *overrides), own_values=own_values)
    index = replace(index, groups=groups)
    extended = with_jobs(directory, index, recorded_sweep(index), checked[len(before) :], trust)
    return extended, [job.number for job in extended.jobs[len(before) :]]


def job_words(words: Sequence[str]) -> tuple[str, ...]:
    """Return the overrides of a job in a fixed order, without Hydra's own settings. They differ for any two jobs."""
    return tuple(sorted(word for word in words if not word.startswith("hydra.")))


def _own_words(composer: Composer, recorded: Sequence[str], words: Sequence[str]) -> list[str]:
    """For each setting that becomes a factor, return an override with its value in the configuration.

    Raises:
        SettingError: for a setting that the configuration lacks, because the existing jobs have no value of it.
    """
    known = {key_of(override) for override in parse_overrides(list(recorded))}
    added = {key_of(override): override for override in parse_overrides(list(words))}
    values = own_values_at(composer, recorded, [key for key in added if key not in (*known, SEED)])
    for key, override in added.items():
        if override.is_add() and key not in (*known, *values):
            raise SettingError(key, ": the jobs of this sweep have no value of it; start a new sweep.")
    return [word_of(key, value) for key, value in values.items()]


def _with_factors(group: Group, index: SweepIndex, swept: SweptLine, own: Sequence[str]) -> Group:
    """Return a group with the values of all factors. A setting that was equal in all jobs may have become a factor."""
    overrides = [*index.jobs_of(group.number)[0].overrides, *own]
    typed = {key_of(override) for override in parse_overrides(overrides)}
    overrides += [word_of(key, value) for key, value in group.values.items() if key not in typed]
    return replace(group, values=swept.values_of(overrides), label=label_of(overrides, swept.factors))


def _identity_of(words: Sequence[str], swept: SweptLine, seed: int) -> str:
    """Return a text that differs for any two jobs of a sweep. ``seed`` is used if no override sets the seed."""
    typed = [plain_value(each) for each in parse_overrides(list(words)) if key_of(each) == SEED]
    return _identity(swept.values_of(words), typed[0] if typed else seed)


def _identity(values: Mapping[str, Any], seed: Any) -> str:
    return json.dumps([values, seed], sort_keys=True)


def _merged(recorded: Sequence[str], words: Sequence[str]) -> list[str]:
    """Return the recorded overrides with the values of ``words`` added to the values of the same key."""
    further = {key_of(override): override for override in parse_overrides(list(words))}
    merged = []
    for override in parse_overrides(list(recorded)):
        added = further.pop(key_of(override), None)
        if added is None:
            merged.append(str(override.input_line))
            continue
        texts = dict.fromkeys([*spelled_values(override), *spelled_values(added)])
        merged.append(f"{override.get_key_element()}={','.join(texts)}")
    return [*merged, *(str(each.input_line) for each in further.values())]


def further_values(held: SweepIndex, sweep: Sweep) -> list[str]:
    """Return the overrides for ``sweep add`` that add the jobs of ``sweep`` to the recorded sweep ``held``."""
    listed = [each for each in parse_overrides(recorded_sweep(held).swept.overrides) if not each.is_interval_sweep()]
    known = {key_of(each): spelled_values(each) for each in listed}
    words = []
    for override in parse_overrides(without_globs(sweep.swept.overrides, sweep.swept.factors)):
        texts = [] if override.is_interval_sweep() else spelled_values(override)
        further = [text for text in texts if text not in known.get(key_of(override), ())]
        if further:
            words.append(f"{override.get_key_element()}={','.join(further)}")
    return words


def _refuse_changes(directory: Path, index: SweepIndex, jobs: Sequence[Job], trust: Trust) -> None:
    """Raise an error if the composed configuration of a job differs from its recorded configuration."""
    mask = masking(trust)
    for entry, job in zip(index.jobs, jobs, strict=True):
        text = mask(config_text(job.recorded))
        if hashlib.sha256(text.encode()).hexdigest() == entry.config_sha256:
            continue
        lines = differences(read_recorded(directory / entry.directory), job.recorded)
        shown = "; ".join(lines[:_MAX_DIFFERENCES]) or "its config.yaml was changed"
        problem = f": the configuration of job {entry.number} has changed since it was begun ({shown})"
        raise SettingError("sweep add", f"{problem}; start a new sweep.")
