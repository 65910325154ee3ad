"""Hydra's own settings are fixed: nothing that a file says may change how Hydra runs.

Its callbacks, launcher, sweeper and logging are all built from configuration, so any of them is a way to run code.
Instead of looking for bad values, the composed tree is compared with the one composed from Loopwright's files alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from loopwright.errors import SettingError, refuse
from loopwright.experiment.gate.tree import walk

# The user's own word, typed on the command line; never a file's.
TYPED_SETTINGS: frozenset[str] = frozenset({"hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.verbose"})

# Written over by Hydra itself while it composes. Of the rest, `hydra.job.name` names the log file and `hydra.mode`
# makes a sweep of a run.
_BOOKKEEPING = (
    "hydra.runtime.choices",
    "hydra.runtime.config_sources",
    "hydra.runtime.cwd",
    "hydra.runtime.version",
    "hydra.runtime.version_base",
    "hydra.job.override_dirname",
    "hydra.job.config_name",
    "hydra.overrides",
)
_ABSENT = object()


def check_hydra_tree(composed: Mapping[str, object], pristine: Mapping[str, object], typed: Sequence[str] = ()) -> None:
    """Refuse a ``hydra`` node that differs from our own in anything the user has not typed and may type.

    Args:
        composed: the ``hydra`` node, not resolved, as a plain mapping.
        pristine: the same composed from our files alone.
        typed: the overrides of the command line, as typed.

    Raises:
        SettingError: naming the first setting that differs.
    """
    ours = dict(_leaves(pristine))
    theirs = dict(_leaves(composed))
    typed_keys = {override_key(override) for override in typed}
    _check_recorded_overrides(composed, {*typed, *_recorded_overrides(pristine)})
    for path in [*theirs, *(path for path in ours if path not in theirs)]:
        if any(_is_under(path, name) for name in _BOOKKEEPING):
            continue
        given, own = theirs.get(path, _ABSENT), ours.get(path, _ABSENT)
        if type(given) is type(own) and given == own:
            continue
        setting = next((name for name in TYPED_SETTINGS if _is_under(path, name)), None)
        if setting in typed_keys:
            continue
        if setting is not None:
            raise refuse(setting, given, "Loopwright's own value", "only the command line may change it")
        raise _fixed(path, given)


def override_key(override: str) -> str:
    """The key that an override sets: ``hydra.run.dir`` for ``++hydra.run.dir=out``, ``model`` for ``~model``."""
    return override.lstrip("+~").partition("=")[0].partition("@")[0].strip()


def _leaves(tree: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """Scalars by path, and containers too, so that an empty one or one of another kind counts as a difference."""
    for path, node in walk(dict(tree), "hydra"):
        yield path, type(node) if isinstance(node, (dict, list, tuple)) else node


def _check_recorded_overrides(composed: Mapping[str, object], typed: Collection[object]) -> None:
    """A sweep takes its jobs from the recorded overrides: a file must not add to them."""
    for entry in _recorded_overrides(composed):
        if entry not in typed:
            raise refuse("hydra.overrides", entry, "overrides typed on the command line")


def _recorded_overrides(tree: Mapping[str, object]) -> list[object]:
    recorded = tree.get("overrides")
    if not isinstance(recorded, Mapping):
        return []
    return [entry for entries in recorded.values() if isinstance(entries, (list, tuple)) for entry in entries]


def _is_under(path: str, name: str) -> bool:
    return path == name or path.startswith((f"{name}.", f"{name}["))


def _fixed(path: str, given: object) -> SettingError:
    remedy = "Hydra's own settings are fixed, so that no configuration can run code through them"
    if given is _ABSENT:
        return SettingError(path, f": expected to be left in place; {remedy}.")
    # Hydra has filled `env_set` from the environment by now where a file asked it to: its values are not repeated.
    if isinstance(given, type) or _is_under(path, "hydra.job.env_set"):
        return SettingError(path, f": expected Loopwright's own value; {remedy}.")
    return refuse(path, given, "Loopwright's own value", remedy)
