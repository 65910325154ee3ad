"""From what Hydra composed to plain data: every interpolation followed once, within a budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from loopwright.errors import SettingError, refuse_type
from loopwright.experiment.gate.expansion import check_expansion
from loopwright.experiment.gate.tree import MAX_CHARACTERS, MAX_DEPTH, MAX_NODES, check_key, join


def resolve(config: DictConfig | ListConfig, path: str = "") -> Any:
    """The configuration as plain dicts, lists and scalars.

    Unlike OmegaConf's own conversion it stops where interpolations multiply: ten lists that name each other ten times
    are ten thousand million values.

    Raises:
        SettingError: one line with the path, for a value that must be given (``???``), an interpolation that leads
            nowhere or raises, and for more than 10,000 values, 1,000,000 characters or 100 levels.
    """
    check_expansion(OmegaConf.to_container(config, resolve=False))
    return _Resolution().plain(config, path, 0)


@dataclass(slots=True)
class _Resolution:
    num_nodes: int = 0
    num_characters: int = 0

    def plain(self, value: object, path: str, depth: int) -> object:
        self.num_nodes += 1
        if self.num_nodes > MAX_NODES:
            raise SettingError(path, f": expected at most {MAX_NODES} values in a configuration.")
        if depth > MAX_DEPTH:
            raise SettingError(path, f": expected at most {MAX_DEPTH} levels of nesting.")
        if isinstance(value, DictConfig):
            if value._is_none():
                return None
            for key in value:
                check_key(key, path)
                self.count(str(key), path)
            return {key: self.entry(value, key, join(path, key), depth) for key in value}
        if isinstance(value, ListConfig):
            if value._is_none():
                return None
            return [self.entry(value, i, f"{path}[{i}]", depth) for i in range(len(value))]
        if isinstance(value, str):
            self.count(value, path)
        if type(value) not in (str, int, float, bool, type(None)):
            raise refuse_type(path, value, "plain data: a mapping, a list, a text, a number or null")
        return value

    def entry(self, config: DictConfig | ListConfig, key: Any, path: str, depth: int) -> object:
        if OmegaConf.is_missing(config, key):
            raise SettingError(path, "=???: this must be given.")
        try:
            value = config[key]
        except OmegaConfBaseException as error:
            raise _unresolved(error, path) from error
        except RecursionError:
            raise SettingError(path, ": the interpolation leads back to itself.") from None
        return self.plain(value, path, depth + 1)

    def count(self, text: str, path: str) -> None:
        self.num_characters += len(text)
        if self.num_characters > MAX_CHARACTERS:
            raise SettingError(path, f": expected at most {MAX_CHARACTERS} characters of text in a configuration.")


def _unresolved(error: BaseException, path: str) -> SettingError:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, SettingError):
            return SettingError(path, f": {cause}")
        cause = cause.__cause__ or cause.__context__
    lines = str(error).strip().splitlines()
    return SettingError(path, f": {lines[0] if lines else type(error).__name__}")
