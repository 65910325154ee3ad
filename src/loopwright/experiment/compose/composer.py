"""`Composer`, which composes configurations from the shipped files and the user's files.

Loopwright composes every configuration with this class, and runs jobs without Hydra's main function. For flags such as
``--cfg``, Hydra's main function prints information, but only after this class has accepted the overrides.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
import yaml  # a dependency of omegaconf
from hydra import compose, initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from loopwright.errors import SettingError
from loopwright.experiment.compose.checked_files import LoadedFiles, check_loaded_files, keeping_files
from loopwright.experiment.compose.composed import (
    Composed,
    check_sets_only_sweep,
    directory_in,
    extend_name,
    interpolations_in,
    resolved,
    take_sweep,
    task_of,
)
from loopwright.experiment.compose.composition_errors import composition_error, other_options, unknown_key
from loopwright.experiment.compose.overrides import (
    SEARCH,
    first_options,
    in_quotes,
    parse_overrides,
    refuse_sweep_words,
    sweep_words,
)
from loopwright.experiment.console.help_text import config_groups
from loopwright.experiment.gate.config_files import check_config_file, yaml_errors
from loopwright.experiment.gate.hydra_tree import check_hydra_tree, override_key
from loopwright.experiment.gate.resolvers import lock_resolvers
from loopwright.shipped import conf_dir

CONFIG_NAME = "config"

# Without `version_base`, Hydra 1.3 behaves like older versions. Hydra 1.4 ignores `version_base` and warns about it.
VERSION_BASE: dict[str, str] = {"version_base": "1.3"} if hydra.__version__.startswith("1.3.") else {}
_PLAIN_KEY = re.compile(r"[A-Za-z_]\w*(\.\w+)*=")
_KEPT = 64  # number of results of `Composer.unresolved` that are kept


class Composer:
    """Composes the configurations of jobs. Only `composing` creates a `Composer`.

    Args:
        config_dir: value of ``--config-dir``; None: only shipped files are read.
        loaded: files that Hydra has loaded for this composer.
        allowed: names of environment variables that the user allows configurations to read.
    """

    def __init__(self, config_dir: Path | None, loaded: LoadedFiles, allowed: Sequence[str] = ()) -> None:
        self._config_dir, self._loaded = config_dir, loaded
        self.allowed = allowed
        self.directories = [conf_dir(), *([] if config_dir is None else [config_dir])]
        self._search_path = [] if config_dir is None else [f"hydra.searchpath=[{in_quotes(f'file://{config_dir}')}]"]
        self._own_settings: dict[tuple[str, ...], dict[str, str]] = {}  # results of `set_in_own_files`
        self._unresolved: dict[tuple[str, ...], Mapping[str, Any] | None] = {}  # results of `unresolved`

    @property
    def groups(self) -> Mapping[str, Sequence[str]]:
        """Names of the options of each configuration group, and of Hydra's launcher and sweeper groups."""
        return config_groups(self.directories) | {"hydra/launcher": ["basic"], "hydra/sweeper": ["basic"]}

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
        whole = self.compose_whole(overrides)
        sweep = take_sweep(whole)
        extend_name(whole, whole.hydra.runtime.choices, overrides, naming_groups, self.allowed)
        task = task_of(whole)
        config, references = resolved(task, self.allowed)
        interpolations, interpolated = interpolations_in(task, whole.hydra)
        return Composed(
            overrides=tuple(overrides),
            config=config,
            references=references,
            interpolations=interpolations,
            interpolated=interpolated,
            hydra=self.hydra_part(whole),
            directory=directory_in(whole, overrides, self.allowed),
            sweep=sweep,
            make_source=lambda: whole,
        )

    def compose_whole(self, overrides: Sequence[str], *, allows_sweep: bool = False) -> DictConfig:
        """Return the configuration of one job as Hydra composes it, with its nodes ``hydra`` and ``sweep``.

        Args:
            overrides: overrides of the job.
            allows_sweep: whether the overrides may set values of ``sweep``.

        Raises:
            SettingError: for wrong overrides, for settings of a sweep if they are not allowed, and for an error in a
                configuration file.
        """
        parse_overrides(overrides)
        if not allows_sweep:
            refuse_sweep_words(overrides)
        return self._compose_checked(overrides)

    def sweep_settings(self, overrides: Sequence[str]) -> dict[str, Any]:
        """Compose the settings of a sweep.

        Files may set them, such as the file of an experiment. If a sweep chooses between files, its first choice is
        read.

        Args:
            overrides: overrides as typed after ``-m``.

        Returns:
            The node ``sweep``, resolved.

        Raises:
            SettingError: for a wrong setting of the sweep, and for a file of ``hparams_search`` that sets anything but
                ``sweep``.
        """
        own, others = sweep_words(overrides)
        # Hydra refuses new keys in a mapping unless the override begins with a plus.
        own = [f"++{word}" if word.startswith("sweep.space=") else word for word in own]
        chosen = first_options(others, self.groups)
        try:
            whole = self._compose_checked([*chosen, *own])
        except SettingError:
            # An error in `chosen` is reported later, with the number of the job. An error in `own` is raised here.
            chosen = []
            whole = self._compose_checked(own)
        searches = [word for word in own if override_key(word) == SEARCH]
        if searches:
            plain = self._compose_checked([*chosen, *(word for word in own if word not in searches)])
            check_sets_only_sweep(searches[0], whole, plain)
            check_hydra_tree(self.hydra_part(whole), self.hydra_part(plain), [*chosen, *own])
        return take_sweep(whole)

    def set_in_own_files(self, overrides: Sequence[str], section: str, names: Sequence[str]) -> dict[str, str]:
        """Return the ``names`` that files in ``--config-dir`` set, each with the last file that sets it.

        Hydra's defaults list names the files of a composition and the package of each file. If two files set a name,
        Hydra uses the value in the later file.

        Args:
            overrides: overrides of a job whose configuration has been composed.
            section: top-level section, such as ``loop``.
            names: names of settings in the section.
        """
        if self._config_dir is None:
            return {}
        groups = self.groups
        # Only the chosen options decide which files are read.
        chosen = [word for word in overrides if override_key(word) in groups]
        known = (section, *names, *chosen)
        if known not in self._own_settings:
            self._own_settings[known] = self._read_own_files(self._config_dir, chosen, section, names)
        return self._own_settings[known]

    def _read_own_files(
        self, config_dir: Path, overrides: Sequence[str], section: str, names: Sequence[str]
    ) -> dict[str, str]:
        found: dict[str, str] = {}
        for default in self.defaults_list(overrides).defaults:
            name = f"{str(default.config_path).removesuffix('.yaml')}.yaml"
            if default.package not in (None, "", section) or not (config_dir / name).is_file():
                continue
            content = yaml.safe_load(check_config_file(config_dir / name))
            if isinstance(content, dict) and default.package != section:
                content = content.get(section)
            if isinstance(content, dict):
                found.update({key: name for key in names if content.get(key) is not None})
        return found

    def defaults_list(self, overrides: Sequence[str]) -> Any:
        """Return Hydra's defaults list: the files of a composition, and the overrides that choose no option."""
        loader = GlobalHydra.instance().config_loader()
        with self._loaded.read_again():
            return loader.compute_defaults_list(CONFIG_NAME, [*self._search_path, *overrides], RunMode.RUN)

    def unresolved(self, group_overrides: Sequence[str]) -> Mapping[str, Any] | None:
        """Compose a configuration with only ``group_overrides``, without resolving its interpolations.

        Equal overrides are composed once. The result contains the node ``hydra``, and must not be changed.

        Returns:
            The configuration as nested dicts; None if the composition fails.
        """
        known = tuple(group_overrides)
        if known not in self._unresolved:
            if len(self._unresolved) >= _KEPT:
                self._unresolved.clear()
            self._unresolved[known] = self._compose_unresolved(group_overrides)
        return self._unresolved[known]

    def hint(self, key: str, overrides: Sequence[str], config: Mapping[str, Any]) -> str:
        """Return a hint for a key that a configuration lacks: the options that have it, or the most similar key.

        Args:
            key: path of a setting.
            overrides: overrides from which the configuration was composed.
            config: composed configuration.
        """
        groups = self.groups
        chosen = [word for word in overrides if override_key(word) in groups]
        return other_options(key, groups, chosen, self._contents_of) or unknown_key(key, config, groups)

    def pristine(self) -> dict[str, Any]:
        """Return the ``hydra`` node that Hydra composes from only the shipped files."""
        return self.hydra_part(compose(CONFIG_NAME, return_hydra_config=True))

    def may_change_hydra(self, overrides: Sequence[str]) -> bool:
        """Return whether the ``hydra`` node of a composition may differ from the result of `pristine`.

        The shipped files other than the root configuration set no value in this node. Therefore, the result is False if
        only shipped files are read and every override has a plain key outside the node.
        """
        top_keys = [override_key(word).partition(".")[0] for word in overrides if _PLAIN_KEY.match(word)]
        return self._config_dir is not None or len(top_keys) < len(overrides) or "hydra" in top_keys

    def hydra_part(self, whole: DictConfig) -> dict[str, Any]:
        """Return the ``hydra`` node of a configuration as nested dicts, without what this class added to it."""
        part = OmegaConf.to_container(whole.hydra, resolve=False, enum_to_str=True)
        assert isinstance(part, dict)
        if self._search_path:
            # Remove the directory that this class added to the search path. The list has no other entries, because the
            # shipped root configuration sets none and the user's command line must not set `hydra.searchpath`.
            part["searchpath"] = []
            part["overrides"]["hydra"] = [word for word in part["overrides"]["hydra"] if word not in self._search_path]
        return {str(key): value for key, value in part.items()}

    def _compose_checked(self, overrides: Sequence[str]) -> DictConfig:
        """Compose a configuration. Convert the errors of Hydra to errors of one line."""
        try:
            return self._compose(overrides)
        except SettingError:
            raise
        except Exception as error:  # noqa: BLE001  (Hydra raises many types of errors; each is converted)
            raise composition_error(error, overrides, self.groups, self.unresolved, self._contents_of) from None

    def _compose(self, overrides: Sequence[str]) -> DictConfig:
        return compose(CONFIG_NAME, overrides=[*self._search_path, *overrides], return_hydra_config=True)

    def _contents_of(self, group: str) -> dict[str, dict[str, Any]]:
        """Return the content of the file of each option in a group. Omit files that contain no valid mapping."""
        contents = {}
        for directory in self.directories:
            for file in sorted((directory / group).glob("*.yaml")):
                try:
                    with yaml_errors(file):
                        values = yaml.safe_load(check_config_file(file))
                except SettingError:
                    continue  # the composition does not need this file, so its errors are not reported
                if isinstance(values, dict):
                    contents[file.stem] = values
        return contents

    def _compose_unresolved(self, group_overrides: Sequence[str]) -> Mapping[str, Any] | None:
        try:
            whole = self._compose(group_overrides)
        except Exception:  # noqa: BLE001  (an error is reported when a job is composed)
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
    with keeping_files() as loaded, initialize_config_dir(str(conf_dir()), job_name="loopwright", **VERSION_BASE):
        yield Composer(directory, loaded, allowed)


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
