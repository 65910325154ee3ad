"""`check_hydra_tree`, which refuses configuration files that change Hydra's own settings.

Hydra builds its callbacks, launcher, sweeper and logging from these settings, so a changed setting could run untrusted
code. The composed ``hydra`` node must be equal to the ``hydra`` node that Hydra composes from only Loopwright's files.
No list of dangerous values is needed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from loopwright.errors import SettingError, refuse
from loopwright.experiment.gate.tree import walk

# Settings that the command line may change. A configuration file must not change them.
TYPED_SETTINGS: frozenset[str] = frozenset({"hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.verbose"})

# Settings that are not compared, because Hydra overwrites them during composition. Do not add `hydra.job.name`, because
# it is the name of the log file. Do not add `hydra.mode`, because it can change a run to a sweep.
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
    """Refuse a ``hydra`` node that differs from Loopwright's ``hydra`` node.

    Only `TYPED_SETTINGS` that are set on the command line may differ.

    Args:
        composed: the composed ``hydra`` node as a dict with unresolved interpolations.
        pristine: the ``hydra`` node composed from only the shipped files.
        typed: the overrides on the command line.

    Raises:
        SettingError: for the first setting that differs, and for an override that a configuration file has added.
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
    """Return the key of an override: ``hydra.run.dir`` for ``++hydra.run.dir=out``, ``model`` for ``~model``."""
    return override.lstrip("+~").partition("=")[0].partition("@")[0].strip()


def _leaves(tree: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """Yield the path and value of every scalar, and the path and type of every container.

    Without the containers, the comparison would not find an added empty container or a container of another type.
    """
    for path, node in walk(dict(tree), "hydra"):
        yield path, type(node) if isinstance(node, (dict, list, tuple)) else node


def _check_recorded_overrides(composed: Mapping[str, object], typed: Collection[object]) -> None:
    """Refuse entries that a configuration file added to ``hydra.overrides``. A sweep builds its jobs from this list."""
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
        return SettingError(path, f": must not be removed; {remedy}.")
    # `env_set` can contain values of environment variables. A message must not show these values.
    if isinstance(given, type) or _is_under(path, "hydra.job.env_set"):
        return SettingError(path, f": expected Loopwright's own value; {remedy}.")
    return refuse(path, given, "Loopwright's own value", remedy)
