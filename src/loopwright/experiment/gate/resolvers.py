"""Functions that register a resolver for ``${oc.env:NAME}`` with OmegaConf.

The resolver reads only variables in `READABLE_NAMES` and variables that the user allows with ``--allow-env NAME``.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from omegaconf import OmegaConf

from loopwright.errors import SettingError
from loopwright.experiment.console.command_line import is_variable_name

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


def lock_resolvers(allowed: Collection[str] = ()) -> None:
    """Replace OmegaConf's resolver ``oc.env`` in this process.

    This function must be called before a configuration is composed. Each call replaces the resolver again.

    Args:
        allowed: names of variables that the user allows, in addition to `READABLE_NAMES`.
    """

    def read(name: str, default: object = _NO_DEFAULT) -> object:
        return read_variable(name, allowed, default)

    register_resolver()("oc.env", read, replace=True)


@contextmanager
def keeping_references(allowed: Collection[str]) -> Iterator[None]:
    """While the context is open, do not resolve ``${oc.env:NAME}`` if NAME is in ``allowed`` and is set.

    Names in `READABLE_NAMES` are always resolved. When the context closes, `lock_resolvers` is called with ``allowed``.
    """

    def read(name: str, default: object = _NO_DEFAULT) -> object:
        is_kept = name in allowed and name not in READABLE_NAMES and name in os.environ
        return f"${{oc.env:{name}}}" if is_kept else read_variable(name, allowed, default)

    register_resolver()("oc.env", read, replace=True)
    try:
        yield
    finally:
        lock_resolvers(allowed)


def register_resolver() -> Callable[..., None]:
    """Return the function of OmegaConf that registers a resolver.

    The name of the function is ``register_new_resolver`` in OmegaConf 2.3 and ``register_resolver`` in OmegaConf 2.4,
    which Hydra 1.4 requires. OmegaConf 2.4 warns about the old name. OmegaConf 2.3 also has an older function
    ``register_resolver`` without the argument ``replace``.
    """
    renamed: Callable[..., None] = OmegaConf.register_resolver
    has_new_meaning = "replace" in inspect.signature(renamed).parameters
    return renamed if has_new_meaning else OmegaConf.register_new_resolver


def read_variable(name: str, allowed: Collection[str], default: object = _NO_DEFAULT) -> object:
    """Return the value of an environment variable as a string, or ``default`` if the variable is not set.

    Raises:
        SettingError: if the variable is neither in `READABLE_NAMES` nor in ``allowed``, and if the variable is not set
            and no default is given.
    """
    if name not in READABLE_NAMES and name not in allowed:
        problem = ": a configuration may not read this environment variable"
        remedy = "; expected the name of an environment variable."
        if is_variable_name(str(name)):
            remedy = f"; add --allow-env {name} only if the configuration may know its value."
        raise SettingError(f"oc.env:{name}", f"{problem}{remedy}")
    value = os.environ.get(name)
    if value is not None:
        return value
    if default is _NO_DEFAULT:
        raise SettingError(f"oc.env:{name}", ": not set, and no default is given.")
    return None if default is None else str(default)
