"""`resolve`, which converts a composed configuration to nested dicts, lists and scalars.

Every interpolation is resolved. A `Budget` limits the size of the result.
"""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from loopwright.errors import SettingError
from loopwright.experiment.gate.budget import Budget
from loopwright.experiment.gate.expansion import check_expansion
from loopwright.experiment.gate.tree import check_key, check_scalar, join


def resolve(config: DictConfig | ListConfig, path: str = "") -> Any:
    """Return the configuration as nested dicts, lists and scalars.

    OmegaConf's own conversion resolves interpolations without a limit. If each of ten lists refers ten times to the
    previous list, the result has 10¹⁰ values. This function stops at the limits of `Budget`.

    Raises:
        SettingError: for a missing value (``???``), for an interpolation that cannot be resolved, and for more than
            10,000 values, 1,000,000 characters or 100 levels. The message is one line with the path of the value.
    """
    check_expansion(OmegaConf.to_container(config, resolve=False))
    return _plain(config, path, 0, Budget())


def _plain(value: object, path: str, depth: int, budget: Budget) -> object:
    budget.spend_values(path)
    budget.check_depth(path, depth)
    if isinstance(value, (DictConfig, ListConfig)) and value._is_none():
        return None
    if isinstance(value, DictConfig):
        for key in value:
            check_key(key, path)
            budget.spend_text(path, len(str(key)))
        return {key: _entry(value, key, join(path, key), depth, budget) for key in value}
    if isinstance(value, ListConfig):
        return [_entry(value, i, join(path, i), depth, budget) for i in range(len(value))]
    if isinstance(value, str):
        budget.spend_text(path, len(value))
    check_scalar(value, path)
    return value


def _entry(config: DictConfig | ListConfig, key: Any, path: str, depth: int, budget: Budget) -> object:
    if OmegaConf.is_missing(config, key):
        raise SettingError(path, "=???: a value must be given.")
    try:
        value = config[key]
    except OmegaConfBaseException as error:
        raise _unresolved(error, path) from error
    except RecursionError:
        raise SettingError(path, ": the interpolation refers to itself.") from None
    return _plain(value, path, depth + 1, budget)


def _unresolved(error: BaseException, path: str) -> SettingError:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, SettingError):
            return SettingError(path, f": {cause}")
        cause = cause.__cause__ or cause.__context__
    lines = str(error).strip().splitlines()
    return SettingError(path, f": {lines[0] if lines else type(error).__name__}")
