"""`Composer`, which composes configurations from the shipped files and the user's files.

Loopwright composes every configuration with this class, and runs jobs without Hydra's main function. For flags such as
``--cfg``, Hydra's main function prints information, but only after this class has accepted the overrides.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import yaml  # a dependency of omegaconf
from hydra import compose, initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from loopwright.errors import SettingError, refuse
from loopwright.experiment.compose.checked_files import check_loaded_files
from loopwright.experiment.compose.composition_errors import composition_error
from loopwright.experiment.compose.overrides import in_quotes, parse_overrides
from loopwright.experiment.console.help_text import config_groups
from loopwright.experiment.console.messages import one_line
from loopwright.experiment.gate.config_files import check_config_file, yaml_errors
from loopwright.experiment.gate.hydra_tree import override_key
from loopwright.experiment.gate.references import References, find_references, refuse_in_path
from loopwright.experiment.gate.resolve import resolve
from loopwright.experiment.gate.resolvers import keeping_references, lock_resolvers
from loopwright.shipped import conf_dir

CONFIG_NAME = "config"

# Without `version_base`, Hydra 1.3 behaves like older versions. Hydra 1.4 ignores `version_base` and warns about it.
VERSION_BASE: dict[str, str] = {"version_base": "1.3"} if hydra.__version__.startswith("1.3.") else {}


_UNNAMED = "run"  # value of ``name`` in the shipped root configuration
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]")
_INTERPOLATED_NAME = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)[.}\[]")


@dataclass(frozen=True, slots=True)
class Composed:
    """Composed configuration of one job.

    Args:
        overrides: overrides from which the configuration was composed.
        config: configuration without its ``hydra`` node, resolved to nested dicts, lists and scalars.
        references: strings of ``config`` that contain values of environment variables, and the text to record for each.
        interpolated: top-level keys to which interpolations in the configuration refer.
        hydra: ``hydra`` node as nested dicts, lists and scalars, with unresolved interpolations.
        directory: typed value of ``hydra.run.dir``, or of ``hydra.sweep.dir`` in a sweep; None if no value was typed.
        source: configuration that Hydra composed, with its ``hydra`` node and unresolved interpolations.
    """

    overrides: tuple[str, ...]
    config: dict[str, Any]
    references: References
    interpolated: frozenset[str]
    hydra: dict[str, Any]
    directory: str | None
    source: DictConfig


class Composer:
    """Composes the configurations of jobs. Only `composing` creates a `Composer`.

    Args:
        config_dir: value of ``--config-dir``; None: only shipped files are read.
        allowed: names of environment variables that the user allows configurations to read.
    """

    def __init__(self, config_dir: Path | None, allowed: Sequence[str] = ()) -> None:
        self._config_dir = config_dir
        self._allowed = allowed
        self._directories = [conf_dir(), *([] if config_dir is None else [config_dir])]
        self._search_path = [] if config_dir is None else [f"hydra.searchpath=[{in_quotes(f'file://{config_dir}')}]"]

    @property
    def groups(self) -> Mapping[str, Sequence[str]]:
        """Names of the options of each configuration group, and of Hydra's launcher and sweeper groups."""
        return config_groups(self._directories) | {"hydra/launcher": ["basic"], "hydra/sweeper": ["basic"]}

    @property
    def loader(self) -> ConfigLoader | None:
        """Hydra's loader, which lists the options of a group.

        None if ``--config-dir`` is given, because this loader does not list the options in that directory.
        """
        return None if self._search_path else GlobalHydra.instance().config_loader()

    def compose(self, overrides: Sequence[str], naming_groups: Sequence[str] = ()) -> Composed:
        """Compose and resolve the configuration of one job.

        Args:
            overrides: overrides of the job.
            naming_groups: groups whose typed options are appended to ``name``. For example, ``model=cnn`` changes
                ``digits`` to ``digits-cnn``. A typed ``name`` is not changed.

        Raises:
            SettingError: for wrong overrides and for an error in a configuration file. The message is one line that
                names all wrong overrides.
        """
        parse_overrides(overrides)
        try:
            whole = self._compose(overrides)
        except SettingError:
            raise
        except Exception as error:  # noqa: BLE001  (Hydra raises many types of errors; each is converted)
            raise composition_error(error, overrides, self.groups, self._keys_under, self._contents_of) from None
        with keeping_references(self._allowed):
            _extend_name(whole, overrides, naming_groups)
        task = whole.copy()
        OmegaConf.set_struct(task, False)
        del task["hydra"]
        config, directory = resolve(task), _typed_directory(whole, overrides)
        texts, directory_text = config, directory
        if self._allowed:
            with keeping_references(self._allowed):
                texts, directory_text = resolve(task), _typed_directory(whole, overrides)
        if directory_text != directory:
            raise refuse_in_path("hydra.run.dir")
        return Composed(
            overrides=tuple(overrides),
            config=config,
            references=find_references(config, texts, self._allowed),
            interpolated=frozenset(_INTERPOLATED_NAME.findall(OmegaConf.to_yaml(task))),
            hydra=self._hydra_part(whole),
            directory=directory,
            source=whole,
        )

    def set_in_own_files(self, overrides: Sequence[str], section: str, names: Sequence[str]) -> dict[str, str]:
        """Return the ``names`` that files in ``--config-dir`` set, each with the last file that sets it.

        Hydra's defaults list names the files of a composition and the package of each file. If two files set a name,
        Hydra uses the value in the later file.

        Args:
            overrides: overrides of a job whose configuration has been composed.
            section: top-level section, such as ``loop``.
            names: names of settings in the section.
        """
        found: dict[str, str] = {}
        if self._config_dir is None:
            return found
        loader = GlobalHydra.instance().config_loader()
        used = loader.compute_defaults_list(CONFIG_NAME, [*self._search_path, *overrides], RunMode.RUN)
        for default in used.defaults:
            name = f"{str(default.config_path).removesuffix('.yaml')}.yaml"
            if default.package not in (None, "", section) or not (self._config_dir / name).is_file():
                continue
            content = yaml.safe_load(check_config_file(self._config_dir / name))
            if isinstance(content, dict) and default.package != section:
                content = content.get(section)
            if isinstance(content, dict):
                found.update({key: name for key in names if content.get(key) is not None})
        return found

    def pristine(self) -> dict[str, Any]:
        """Return the ``hydra`` node that Hydra composes from only the shipped files."""
        return self._hydra_part(compose(CONFIG_NAME, return_hydra_config=True))

    def _hydra_part(self, whole: DictConfig) -> dict[str, Any]:
        part = OmegaConf.to_container(whole.hydra, resolve=False, enum_to_str=True)
        assert isinstance(part, dict)
        if self._search_path:
            # Remove the directory that this class added to the search path. The list has no other entries, because the
            # shipped root configuration sets none and the user's command line must not set `hydra.searchpath`.
            part["searchpath"] = []
            part["overrides"]["hydra"] = [word for word in part["overrides"]["hydra"] if word not in self._search_path]
        return {str(key): value for key, value in part.items()}

    def _compose(self, overrides: Sequence[str]) -> DictConfig:
        return compose(CONFIG_NAME, overrides=[*self._search_path, *overrides], return_hydra_config=True)

    def _contents_of(self, group: str) -> dict[str, dict[str, Any]]:
        """Return the content of the file of each option in a group. Omit files that contain no valid mapping."""
        contents = {}
        for directory in self._directories:
            for file in sorted((directory / group).glob("*.yaml")):
                try:
                    with yaml_errors(file):
                        values = yaml.safe_load(check_config_file(file))
                except SettingError:
                    continue  # the composition does not need this file, so its errors are not reported
                if isinstance(values, dict):
                    contents[file.stem] = values
        return contents

    def _keys_under(self, group_overrides: Sequence[str]) -> Mapping[str, Any] | None:
        """Compose a configuration with only ``group_overrides``. Return None if the composition fails."""
        try:
            whole = self._compose(group_overrides)
        except Exception:  # noqa: BLE001  (the caller is building an error message and needs no second error)
            return None
        config = OmegaConf.to_container(whole, resolve=False)
        assert isinstance(config, dict)
        return {str(key): value for key, value in config.items()}


@contextmanager
def composing(config_dir: str | None, allowed: Sequence[str] = ()) -> Iterator[Composer]:
    """Prepare the composition of configurations from the shipped files and the files in ``config_dir``.

    Args:
        config_dir: directory with configuration files of the user; None: only shipped files are read.
        allowed: names of environment variables that the user allows configurations to read.

    Raises:
        SettingError: if ``config_dir`` is not a directory, or contains a file that Hydra would not read.
    """
    directory = None if config_dir is None else Path(config_dir).resolve()
    if directory is not None and not directory.is_dir():
        raise SettingError("--config-dir", f"={config_dir!r}: no such directory.")
    if directory is not None:
        _check_names(directory)
    lock_resolvers(allowed)
    check_loaded_files()
    with initialize_config_dir(str(conf_dir()), job_name="loopwright", **VERSION_BASE):
        yield Composer(directory, allowed)


def _check_names(directory: Path) -> None:
    """Refuse files of the user that Hydra would not read.

    Hydra reads a shipped file instead of a user's file with an equal name. Files in the folder ``hydra`` are also
    refused, because Hydra's own settings are fixed.
    """
    shipped = conf_dir()
    for file in sorted(directory.rglob("*.yaml")):
        name = file.relative_to(directory)
        if name.parts[0] == "hydra":
            raise SettingError(
                str(file), ": Hydra's own settings are fixed; remove this file, or move it out of the folder hydra."
            )
        if (shipped / name).exists():
            raise SettingError(str(file), f": the shipped {name} would be read instead; rename this file.")


def _extend_name(whole: DictConfig, overrides: Sequence[str], groups: Sequence[str]) -> None:
    """Append the typed options of ``groups`` to the name of the run. A typed name is not changed.

    If no configuration file sets a name, the name of the experiment is used. An option equal to the name is omitted.
    """
    typed = {override_key(word) for word in overrides if not word.startswith("~")}
    name = OmegaConf.select(whole, "name", throw_on_resolution_failure=False)
    if "name" in typed or not isinstance(name, str):
        return
    choices = whole.hydra.runtime.choices
    if name == _UNNAMED and isinstance(choices.get("experiment"), str) and choices["experiment"] != "null":
        name = _NOT_IN_NAMES.sub("-", choices["experiment"])
    options = [choices[group] for group in groups if group in typed and isinstance(choices.get(group), str)]
    parts = [_NOT_IN_NAMES.sub("-", option) for option in options if option != name]
    whole.name = "-".join([name, *parts])


def _typed_directory(whole: DictConfig, overrides: Sequence[str]) -> str | None:
    for key in ("hydra.run.dir", "hydra.sweep.dir"):
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
