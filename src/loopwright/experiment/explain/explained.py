"""`explained`, which composes a configuration together with the origin of each value."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from loopwright.errors import SettingError
from loopwright.experiment.compose.composed import extend_name, resolved, task_of
from loopwright.experiment.compose.composer import Composer
from loopwright.experiment.compose.origins import Names, Origins, Writer, read_origins
from loopwright.experiment.gate.hydra_tree import override_key
from loopwright.experiment.gate.references import put_back
from loopwright.experiment.jobs.job_settings import NAMING_GROUPS, without_training
from loopwright.experiment.jobs.metric_modes import settle_modes
from loopwright.experiment.jobs.typed_lengths import LENGTHS, settle_lengths

if TYPE_CHECKING:
    from loopwright.experiment.jobs.job import Job

NO_VALUE = object()  # returned for a path that does not exist
MISSING = "???"  # value of a setting that must be given
_BETTER = {"min": "smaller", "max": "larger"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """Composed configuration of one job, with the origin of each value.

    Attributes:
        overrides: overrides of the job.
        raw: configuration with unresolved interpolations.
        values: configuration that the run would record, and the node ``sweep``. A value that must be given is ``???``.
        origins: writers of each value.
        settled: why Loopwright itself sets a value, by the path of the value.
        choices: chosen option of each configuration group.
    """

    overrides: Sequence[str]
    raw: Mapping[str, Any]
    values: Mapping[str, Any]
    origins: Origins
    settled: Mapping[Names, str]
    choices: Mapping[str, Any]


def explained(composer: Composer, overrides: Sequence[str]) -> Explained:
    """Compose the configuration of one job, and find the origin of each value.

    The settings are not checked, so that a wrong value can be explained, too.

    Raises:
        SettingError: for wrong overrides, for an error in a configuration file, and for an interpolation that cannot be
            resolved.
    """
    whole = composer.compose_whole(overrides, allows_sweep=True)
    choices = _plain(whole.hydra.runtime.choices)
    extend_name(whole, choices, overrides, NAMING_GROUPS, composer.allowed)
    task = task_of(whole)
    raw = _plain(task)
    missing = [path for path, value in leaves(raw) if value == MISSING]
    composed, references = resolved(_without_missing(task, missing), composer.allowed)
    values, notes = _settle(put_back(composed, references), composer, overrides)
    for path in missing:
        _put(values, path, MISSING)
    return _with_origins(composer, overrides, raw, values, notes, choices)


def explained_job(composer: Composer, job: Job) -> Explained:
    """Find the origin of each value of a composed job.

    Raises:
        SettingError: for a file that cannot be read.
    """
    assert job.source is not None, "the configuration was composed"
    raw, choices = _plain(task_of(job.source)), _plain(job.source.hydra.runtime.choices)
    return _with_origins(composer, job.overrides, raw, job.recorded, job.notes, choices)


def _with_origins(
    composer: Composer,
    overrides: Sequence[str],
    raw: Mapping[str, Any],
    values: Mapping[str, Any],
    notes: Sequence[str],
    choices: Mapping[str, Any],
) -> Explained:
    origins = read_origins(composer, overrides)
    settled = settled_values(raw, values, notes)
    reason = _reason_of_name(origins.writers(("name",)), str(values.get("name")), overrides)
    if reason:
        settled[("name",)] = reason
    return Explained(overrides=overrides, raw=raw, values=values, origins=origins, settled=settled, choices=choices)


def _plain(config: DictConfig) -> dict[str, Any]:
    """Return a configuration as nested dicts and lists, with unresolved interpolations."""
    plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def value_at(config: Any, path: Sequence[str]) -> Any:
    """Return the value at a path, or `NO_VALUE` if there is no such path."""
    for name in path:
        if isinstance(config, Mapping):
            config = next((each for key, each in config.items() if str(key) == name), NO_VALUE)
        elif isinstance(config, list) and name.isdigit() and int(name) < len(config):
            config = config[int(name)]
        else:
            return NO_VALUE
    return config


def leaves(config: Any, path: Names = ()) -> Iterator[tuple[Names, Any]]:
    """Yield the path and the value of each setting. A list is one value, and so is an empty mapping."""
    if isinstance(config, Mapping) and (config or not path):
        for key, each in config.items():
            yield from leaves(each, (*path, str(key)))
    else:
        yield path, config


def settled_values(before: Mapping[str, Any], after: Mapping[str, Any], notes: Sequence[str]) -> dict[Names, str]:
    """Return why Loopwright has replaced values of a configuration, by the path of the value.

    Args:
        before: configuration with unresolved interpolations.
        after: configuration that the run records.
        notes: lines about unused lengths of training, as `settle_lengths` returns them.
    """
    found = {}
    for path, value in leaves(after):
        given = value_at(before, path)
        if given == value or (isinstance(given, str) and "${" in given):
            continue
        note = next((each for each in notes if each.startswith(f"{'.'.join(path)}=")), None)
        if note is not None:
            found[path] = note.partition(" is not used: ")[2]
        elif isinstance(value, str) and value in _BETTER:
            metric = after.get("objective") if len(path) == 1 else value_at(after, (*path[:-1], "monitor"))
            found[path] = f"{_BETTER[value]} values of {metric} are better"
    return found


def _settle(
    composed: dict[str, Any], composer: Composer, overrides: Sequence[str]
) -> tuple[dict[str, Any], Sequence[str]]:
    """Replace values as a job does: unused lengths, and modes of metrics. Also return lines about unused lengths."""
    about_loop = [word for word in overrides if override_key(word).partition(".")[0] == "loop"]
    find_own = partial(composer.set_in_own_files, overrides, "loop", LENGTHS)
    values, notes = settle_lengths(without_training(composed, overrides), about_loop, find_own)
    with suppress(SettingError):  # an invalid mode is explained as it is
        values = settle_modes(values)
    return copy.deepcopy(values), notes


def _without_missing(task: DictConfig, missing: Sequence[Names]) -> DictConfig:
    """Return a copy in which values that must be given are null, so that the other values can be resolved."""
    if not missing:
        return task
    task = task.copy()
    for path in missing:
        node: Any = task
        for name in path[:-1]:
            node = node[name]
        node[path[-1]] = None
    return task


def _put(config: dict[str, Any], path: Names, value: Any) -> None:
    section = value_at(config, path[:-1])
    if isinstance(section, dict) and path[-1] in section:
        section[path[-1]] = value


def _reason_of_name(writers: Sequence[Writer], name: str, overrides: Sequence[str]) -> str:
    """Return why a run has another name than the files set; empty if it has the name that they set."""
    before = writers[-1].text if writers else ""
    if name == before or "${" in before:
        return ""
    typed = " ".join(word for word in overrides if override_key(word) in NAMING_GROUPS)
    if not name.startswith(f"{before}-"):
        return "the name of the experiment" + (f", and the options of {typed}" if typed else "")
    return f"{name.removeprefix(before)} is appended because of {typed}"
