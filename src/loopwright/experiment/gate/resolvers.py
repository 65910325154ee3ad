"""The resolver for ``${oc.env:NAME}``. It reads only the environment variables in `READABLE_NAMES`."""

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
    """Replace OmegaConf's resolver ``oc.env`` in this process.

    Call this function before a configuration is composed. Further calls have no effect.
    """
    register_resolver()("oc.env", _read_listed, replace=True)


def register_resolver() -> Callable[..., None]:
    """Return the function of OmegaConf that registers a resolver.

    In OmegaConf 2.3 the function is ``register_new_resolver``. In OmegaConf 2.4, which Hydra 1.4 requires, it is
    ``register_resolver``, and a call of ``register_new_resolver`` raises a warning. OmegaConf 2.3 has another, older
    function ``register_resolver`` without the argument ``replace``.
    """
    renamed: Callable[..., None] = OmegaConf.register_resolver
    has_new_meaning = "replace" in inspect.signature(renamed).parameters
    return renamed if has_new_meaning else OmegaConf.register_new_resolver


def _read_listed(name: str, default: object = _NO_DEFAULT) -> object:
    """Return the value of an environment variable as a string, or ``default`` if the variable is not set.

    Raises:
        SettingError: if the variable is not in `READABLE_NAMES`, even if it is set. Also if the variable is not set
            and no default is given.
    """
    if name not in READABLE_NAMES:
        listed = ", ".join(sorted(READABLE_NAMES))
        raise SettingError(f"oc.env:{name}", f": a configuration may read only the environment variables {listed}.")
    value = os.environ.get(name)
    if value is not None:
        return value
    if default is _NO_DEFAULT:
        raise SettingError(f"oc.env:{name}", ": not set, and no default is given.")
    return None if default is None else str(default)
