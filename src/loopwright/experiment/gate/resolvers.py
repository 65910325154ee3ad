"""What ``${oc.env:NAME}`` may read: the names listed here, and nothing else of the environment."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable

from omegaconf import OmegaConf

from loopwright.errors import SettingError

READABLE_NAMES: frozenset[str] = frozenset(
    {
        "CUDA_VISIBLE_DEVICES",
        "LOCAL_RANK",
        "LOCAL_WORLD_SIZE",
        "OMP_NUM_THREADS",
        "RANK",
        "SLURM_ARRAY_JOB_ID",
        "SLURM_ARRAY_TASK_ID",
        "SLURM_JOB_ID",
        "SLURM_JOB_NAME",
        "SLURM_LOCALID",
        "SLURM_NTASKS",
        "SLURM_PROCID",
        "WORLD_SIZE",
    }
)

_NO_DEFAULT = object()


def lock_resolvers() -> None:
    """Replace OmegaConf's ``oc.env`` for this process; call it before anything is composed. Idempotent."""
    register_resolver()("oc.env", _read_listed, replace=True)


def register_resolver() -> Callable[..., None]:
    """OmegaConf's function that registers a resolver.

    Version 2.4, which Hydra 1.4 brings, warns of the name it has in 2.3, where the new name is that of an older
    function without ``replace``.
    """
    renamed: Callable[..., None] = OmegaConf.register_resolver
    has_new_meaning = "replace" in inspect.signature(renamed).parameters
    return renamed if has_new_meaning else OmegaConf.register_new_resolver


def _read_listed(name: str, default: object = _NO_DEFAULT) -> object:
    """The value of a listed name as text, or ``default`` where it is not set.

    Raises:
        SettingError: for a name that is not listed, set or not, and for one that is not set and has no default.
    """
    if name not in READABLE_NAMES:
        listed = ", ".join(sorted(READABLE_NAMES))
        raise SettingError(f"oc.env:{name}", f": a configuration may read only {listed}.")
    value = os.environ.get(name)
    if value is not None:
        return value
    if default is _NO_DEFAULT:
        raise SettingError(f"oc.env:{name}", ": not set, and no default is given.")
    return None if default is None else str(default)
