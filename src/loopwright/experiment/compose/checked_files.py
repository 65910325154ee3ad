"""`check_loaded_files`, which makes Hydra check each configuration file before Hydra loads the file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from hydra._internal import config_loader_impl
from hydra._internal.config_repository import CachingConfigRepository
from hydra.plugins.config_source import ConfigResult, ConfigSource

from loopwright.errors import SettingError, on_one_line
from loopwright.experiment.gate.config_files import check_config_file
from loopwright.shipped import conf_dir

# Maximum number of calls of `CheckedRepository.load_config` in one composition. Hydra calls this method about twice for
# each entry of a defaults list. The default experiment has about 20 files. If each file of a chain names the next file
# twice, the number of calls doubles with each file.
MAX_LOADS = 500

_MAX_REASON = 200  # maximum number of characters of Hydra's or YAML's error message in a `SettingError`


class LoadedFiles:
    """Files that Hydra has loaded in several compositions, by the paths of all sources and by the path of the file.

    The values in a loaded file are not reliable, because Hydra's result shares objects with the loaded files, and
    overrides change these objects. Only the defaults lists and the packages of the files may be read again.
    """

    def __init__(self) -> None:
        self.may_be_read = False
        self._results: dict[tuple[tuple[str, ...], str], ConfigResult | None] = {}

    def get(self, sources: Sequence[ConfigSource], config_path: str) -> ConfigResult | None:
        """Return a loaded file. Return None if the file must be loaded."""
        return self._results.get(_place(sources, config_path)) if self.may_be_read else None

    def add(self, sources: Sequence[ConfigSource], config_path: str, result: ConfigResult | None) -> None:
        """Add a loaded file."""
        self._results[_place(sources, config_path)] = result

    @contextmanager
    def read_again(self) -> Iterator[None]:
        """While the context is open, let Hydra read the loaded files, to compute a defaults list but not to compose."""
        self.may_be_read = True
        try:
            yield
        finally:
            self.may_be_read = False


def _place(sources: Sequence[ConfigSource], config_path: str) -> tuple[tuple[str, ...], str]:
    return tuple(source.path for source in sources), config_path


_LOADED: ContextVar[LoadedFiles | None] = ContextVar("loaded", default=None)


class CheckedRepository(CachingConfigRepository):
    """Hydra's repository of configuration files for one composition, with a check before a file is loaded.

    Every file that Hydra loads is checked, including files in linked folders. Other files are not checked.

    This class replaces a private class of Hydra, because the public plugin interface `ConfigSource` is not sufficient.
    Hydra calls a source only once for each file, so a source cannot count the entries of defaults lists. Plugins cannot
    replace the source for ``file://``, with which Hydra reads the shipped files and ``--config-dir``. A check before
    the composition would need a second implementation of defaults lists. A check after the composition would be too
    late, because Hydra would have loaded the files.

    Inside `keeping_files`, the loaded files are added to a `LoadedFiles`.
    """

    _num_loads = 0

    def load_config(self, config_path: str) -> ConfigResult | None:
        """Check and load a file.

        Raises:
            SettingError: if the file is outside the directory of its source, if `check_config_file` refuses the file,
                if Hydra cannot load it, and for more than `MAX_LOADS` calls.
        """
        self._num_loads += 1
        if self._num_loads > MAX_LOADS:
            problem = f": expected defaults lists that load at most {MAX_LOADS:,} files in all."
            raise SettingError(config_path, problem)
        is_new, loaded = f"config_path={config_path}" not in self.cache, _LOADED.get()
        if is_new and loaded is not None and (known := loaded.get(self.get_sources(), config_path)) is not None:
            return known
        if is_new:
            self._check(config_path)
        try:
            result = super().load_config(config_path)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            problem = f": cannot be loaded ({on_one_line(f'{type(error).__name__}: {error}', _MAX_REASON)})."
            raise SettingError(config_path, problem) from error
        if is_new and loaded is not None:
            loaded.add(self.get_sources(), config_path, result)
        return result

    def _check(self, config_path: str) -> None:
        if os.path.isabs(config_path) or os.pardir in config_path.split("/"):
            problem = ": leads out of the configuration directory; name a file in this directory, such as /model: mlp."
            raise SettingError(config_path, problem)
        source = next((each for each in self.delegate.get_sources() if _contains(each, config_path)), None)
        if source is None or source.scheme() != "file" or Path(source.path) == conf_dir():
            return
        root = os.path.realpath(source.path)
        file = os.path.realpath(os.path.join(root, source._normalize_file_name(config_path)))
        if not file.startswith(os.path.join(root, "")):
            problem = f": leads out of {root} through a link; copy the file {file} into this directory."
            raise SettingError(os.path.join(source.path, config_path), problem)
        check_config_file(Path(file))


def _contains(source: ConfigSource, config_path: str) -> bool:
    """Return whether a source contains a file of this name. Pipes and devices count as files."""
    if source.scheme() != "file":
        return source.is_config(config_path)
    file = os.path.join(source.path, source._normalize_file_name(config_path))
    return os.path.exists(file) and not os.path.isdir(file)


def check_loaded_files() -> None:
    """Make Hydra use `CheckedRepository` in this process. A second call has no effect."""
    assert hasattr(config_loader_impl, "CachingConfigRepository"), "another version of Hydra loads files elsewhere"
    config_loader_impl.CachingConfigRepository = CheckedRepository


@contextmanager
def keeping_files() -> Iterator[LoadedFiles]:
    """While the context is open, keep the files that Hydra loads."""
    loaded = LoadedFiles()
    token = _LOADED.set(loaded)
    try:
        yield loaded
    finally:
        _LOADED.reset(token)
