"""`deterministic_workspace`, which configures cuBLAS for reproducible results. This module imports no torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from loopwright.errors import refuse

_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
_DETERMINISTIC_WORKSPACES = (":4096:8", ":16:8")  # the values that torch's notes on reproducibility list


@contextmanager
def deterministic_workspace(*, is_needed: bool) -> Iterator[None]:
    """If ``is_needed``, set the environment variable ``CUBLAS_WORKSPACE_CONFIG`` to ``:4096:8`` during the context.

    cuBLAS is deterministic with the values ``:4096:8`` and ``:16:8``. If the user has set the variable to one of these
    values, the variable is not changed.

    cuBLAS and torch read the variable once per process, at the first matrix multiplication. The context must therefore
    enclose all code that may use a device. In a sweep, the context must also enclose jobs that need no determinism.

    Raises:
        SettingError: if ``is_needed`` is True and the user has set the variable to another value.
    """
    given = os.environ.get(_WORKSPACE)
    if not is_needed or given in _DETERMINISTIC_WORKSPACES:
        yield
        return
    if given is not None:
        expected = f"{' or '.join(_DETERMINISTIC_WORKSPACES)} with deterministic=true"
        raise refuse(_WORKSPACE, given, expected, "unset it, or use deterministic=false")
    os.environ[_WORKSPACE] = _DETERMINISTIC_WORKSPACES[0]
    try:
        yield
    finally:
        os.environ.pop(_WORKSPACE, None)
