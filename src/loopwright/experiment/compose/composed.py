"""`Composed`, the composed configuration of one job, and the steps that make it from a configuration of Hydra."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from loopwright.errors import SettingError, refuse
from loopwright.experiment.console.messages import one_line
from loopwright.experiment.gate.hydra_tree import override_key
from loopwright.experiment.gate.references import References, find_references, refuse_in_path
from loopwright.experiment.gate.resolve import resolve
from loopwright.experiment.gate.resolvers import keeping_references

SWEEP = "sweep"  # node with the settings of a sweep, which is part of no job's configuration
DIRECTORIES = ("hydra.run.dir", "hydra.sweep.dir")

_UNNAMED = "run"  # value of ``name`` in the shipped root configuration
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]")
_INTERPOLATION = re.compile(r"\$\{[^}]*.?")
_INTERPOLATED_NAME = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)[.}\[]")


@dataclass(frozen=True, slots=True)
class Composed:
    """Composed configuration of one job.

    Args:
        overrides: overrides from which the configuration was composed.
        config: configuration without the nodes ``hydra`` and ``sweep``, resolved to nested dicts, lists and scalars.
        references: strings of ``config`` that contain values of environment variables, and the text to record for each.
        interpolations: texts of the interpolations, such as ``${model.width}``. A nested interpolation is cut after its
            first closing brace.
        interpolated: top-level keys to which interpolations in the configuration refer.
        hydra: ``hydra`` node as nested dicts, lists and scalars, with unresolved interpolations. The lists in
            ``hydra.overrides`` may lack overrides of single values.
        directory: typed value of ``hydra.run.dir``, or of ``hydra.sweep.dir`` in a sweep; None if no value was typed.
        sweep: resolved node ``sweep``; empty if there is none.
        make_source: function that returns `source`.
    """

    overrides: tuple[str, ...]
    config: dict[str, Any]
    references: References
    interpolations: frozenset[str]
    interpolated: frozenset[str]
    hydra: dict[str, Any]
    directory: str | None
    sweep: dict[str, Any]
    make_source: Callable[[], DictConfig]

    @property
    def source(self) -> DictConfig:
        """Configuration that Hydra composed, with its ``hydra`` node and unresolved interpolations."""
        return self.make_source()


def take_sweep(whole: DictConfig) -> dict[str, Any]:
    """Remove the node ``sweep`` from a configuration, and return it resolved; an empty dict if there is none.

    Raises:
        SettingError: for a value that cannot be resolved.
    """
    node = whole.get(SWEEP)
    sweep = resolve(node, SWEEP) if isinstance(node, DictConfig) else {}
    with open_dict(whole):
        whole.pop(SWEEP, None)
    return dict(sweep or {})


def check_sets_only_sweep(word: str, whole: DictConfig, plain: DictConfig) -> None:
    """Refuse a file that was chosen for a sweep and sets anything but ``sweep``.

    Args:
        word: override that chooses the file.
        whole: composed configuration.
        plain: configuration composed without ``word``.

    Raises:
        SettingError: if a top-level key other than ``sweep`` differs between the two configurations.
    """
    before, after = (OmegaConf.to_container(task_of(each), resolve=False) for each in (plain, whole))
    assert isinstance(before, dict) and isinstance(after, dict)
    changed = [str(key) for key in {**before, **after} if key != SWEEP and before.get(key) != after.get(key)]
    if changed:
        first_line = "the file begins with the line '# @package _global_'"
        raise SettingError(word, f": expected a file that sets only sweep, but it sets {changed[0]}; {first_line}.")


def task_of(whole: DictConfig) -> DictConfig:
    """Return a copy of a configuration without its ``hydra`` node."""
    task = whole.copy()
    OmegaConf.set_struct(task, False)
    del task["hydra"]
    return task


def resolved(task: DictConfig, allowed: Sequence[str]) -> tuple[dict[str, Any], References]:
    """Resolve a configuration, and find the strings with values of environment variables.

    Args:
        task: configuration without its ``hydra`` node.
        allowed: names of environment variables that the user allows configurations to read.

    Raises:
        SettingError: for a value that cannot be resolved, and for a reference that a run cannot record.
    """
    config = texts = resolve(task)
    if allowed:
        with keeping_references(allowed):
            texts = resolve(task)
    return config, find_references(config, texts, allowed)


def interpolations_in(task: DictConfig, hydra: DictConfig) -> tuple[frozenset[str], frozenset[str]]:
    """Return the texts of all interpolations, and the top-level keys to which interpolations in ``task`` refer.

    The texts include the interpolations in the paths of run directories and sweep directories.
    """
    strings = list(_strings(OmegaConf.to_container(task, resolve=False)))
    paths = [*_strings([OmegaConf.to_container(hydra[name], resolve=False) for name in ("run", "sweep")])]
    names = {name for text in strings for name in _INTERPOLATED_NAME.findall(text)}
    return frozenset(each for text in (*strings, *paths) for each in _INTERPOLATION.findall(text)), frozenset(names)


def _strings(node: Any) -> Iterator[str]:
    """Yield the strings in nested dicts and lists that contain an interpolation."""
    if isinstance(node, str):
        if "${" in node:
            yield node
    elif isinstance(node, dict | list):
        for each in node.values() if isinstance(node, dict) else node:
            yield from _strings(each)


def extend_name(
    config: DictConfig, choices: Any, overrides: Sequence[str], groups: Sequence[str], allowed: Sequence[str]
) -> None:
    """Append the typed options of ``groups`` to the name of the run. A typed name is not changed.

    If no configuration file sets a name, the name of the experiment is used. An option equal to the name is omitted.

    Args:
        config: composed configuration, whose name is changed.
        choices: chosen option of each configuration group.
        overrides: overrides of the job.
        groups: groups whose typed options are appended.
        allowed: names of environment variables that the user allows; their values do not become part of the name.
    """
    typed = {override_key(word) for word in overrides if not word.startswith("~")}
    with _references_kept(allowed):
        name = OmegaConf.select(config, "name", throw_on_resolution_failure=False)
    if "name" in typed or not isinstance(name, str):
        return
    if name == _UNNAMED and isinstance(choices.get("experiment"), str) and choices["experiment"] != "null":
        name = _NOT_IN_NAMES.sub("-", choices["experiment"])
    options = [choices[group] for group in groups if group in typed and isinstance(choices.get(group), str)]
    parts = [_NOT_IN_NAMES.sub("-", option) for option in options if option != name]
    config.name = "-".join([name, *parts])


def directory_in(whole: DictConfig, overrides: Sequence[str], allowed: Sequence[str]) -> str | None:
    """Return the typed value of ``hydra.run.dir`` or ``hydra.sweep.dir``, resolved; None if no value was typed.

    Raises:
        SettingError: for a value that is not a path, and for a path with the value of an environment variable.
    """
    directory = _typed_directory(whole, overrides)
    if allowed:
        with keeping_references(allowed):
            text = _typed_directory(whole, overrides)
        if text != directory:
            raise refuse_in_path("hydra.run.dir")
    return directory


def _typed_directory(whole: DictConfig, overrides: Sequence[str]) -> str | None:
    for key in DIRECTORIES:
        if any(override_key(word) == key for word in overrides):
            section = whole.hydra[key.split(".")[1]]
            try:
                directory = section.dir
            except OmegaConfBaseException as error:
                raise SettingError(key, f": {one_line(str(error).splitlines()[0])}.") from None
            if not isinstance(directory, str) or not directory or not directory.isprintable():
                raise refuse(key, directory, "a directory")
            return directory
    return None


def _references_kept(allowed: Sequence[str]) -> AbstractContextManager[None]:
    return keeping_references(allowed) if allowed else nullcontext()
