"""Functions that find how the configuration of a run differs from the configuration of its experiment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from loopwright.experiment.compose.composed import Composed
from loopwright.experiment.compose.composer import Composer
from loopwright.experiment.gate.hydra_tree import override_key
from loopwright.experiment.gate.references import put_back

Changes = Mapping[str, tuple[Any, Any]]  # path of a setting, and its value before and after the change

EXPERIMENT = "experiment"  # group whose option chooses a whole configuration
_SET_BY_US = ("name", "ckpt_path")  # Loopwright sets them, unless they were typed
_NOT_COMPARED = ("hydra", "sweep", *_SET_BY_US)  # unless they were typed
_MISSING = "???"  # value of a setting that must be given


def changes_of(composer: Composer, composed: Composed) -> Changes:
    """Return the settings that differ from the configuration of the experiment.

    A group whose option differs from the option in the experiment is one entry, such as ``model: (mlp, cnn)``. The
    settings in this group are compared with the settings of its option. A value of an environment variable is replaced
    by its reference.

    Args:
        composer: composer of the configuration.
        composed: composed configuration of a job.
    """
    typed = [override_key(word) for word in composed.overrides]
    choosing = [word for word, key in zip(composed.overrides, typed, strict=True) if key in composer.groups]
    experiment = [word for word in choosing if override_key(word) == EXPERIMENT]
    others = [key for key in typed if key not in composer.groups and key.partition(".")[0] != "hydra"]
    found: dict[str, tuple[Any, Any]] = {}
    if len(choosing) > len(experiment) and (own := composer.unresolved(experiment)) is not None:
        before, after = _choices(own["hydra"]), _choices(composed.hydra)
        found = {group: (before.get(group), option) for group, option in after.items() if before.get(group) != option}
    if others and (configured := composer.unresolved(choosing)) is not None:
        for path, (value, new_value) in _differences("", configured, put_back(composed.config, composed.references)):
            is_typed = any(path == key or path.startswith(f"{key}.") for key in others)
            if is_typed or (path.partition(".")[0] not in _NOT_COMPARED and not _is_interpolation(value)):
                found[path] = (None if value == _MISSING else value, new_value)
    return found


def changes_after_resume(changes: Changes, recorded: Mapping[str, Any], config: Mapping[str, Any]) -> Changes:
    """Return the changes of a resumed run.

    Args:
        changes: recorded changes.
        recorded: recorded configuration of the run.
        config: configuration with which the run is resumed.
    """
    found = dict(changes)
    for path, (before, after) in _differences("", recorded, config):
        if path not in _SET_BY_US:
            found[path] = (found[path][0] if path in found else before, after)
    return {path: pair for path, pair in found.items() if pair[0] != pair[1]}


def _choices(hydra: Mapping[str, Any]) -> dict[str, Any]:
    """Return the chosen option of each group, except the groups of Hydra."""
    choices: Mapping[str, Any] = hydra["runtime"]["choices"]
    return {group: option for group, option in choices.items() if not group.startswith("hydra") and group != EXPERIMENT}


def _is_interpolation(value: object) -> bool:
    return isinstance(value, str) and "${" in value


def _differences(path: str, before: Any, after: Any) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Yield the path and both values of each setting that differs. A missing setting has the value None."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in {**before, **after}:
            yield from _differences(f"{path}.{key}" if path else str(key), before.get(key), after.get(key))
    elif before != after or type(before) is not type(after):
        yield path, (before, after)


def as_changes(value: object) -> Changes:
    """Return recorded changes. Entries of other forms are ignored, because a file may contain any value."""
    items = value.items() if isinstance(value, Mapping) else ()
    return {str(path): (pair[0], pair[1]) for path, pair in items if isinstance(pair, list | tuple) and len(pair) == 2}
