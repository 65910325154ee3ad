"""Context managers that configure torch, cuDNN and cuBLAS for reproducible results."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from loopwright.errors import SettingError, refuse

_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
_DETERMINISTIC_WORKSPACES = (":4096:8", ":16:8")  # the values that torch's notes on reproducibility list
_NOT_DETERMINISTIC = re.compile(r"([^\n:]+) does not have a deterministic implementation")


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


@contextmanager
def deterministic_operations(is_on: bool) -> Iterator[None]:
    """If ``is_on``, restrict torch to deterministic operations during the context; otherwise allow all operations.

    At the end of the context, the previous settings of torch and cuDNN are restored.

    Raises:
        SettingError: if an operation has no deterministic implementation. This error replaces torch's `RuntimeError`
            and names the operation.
    """
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn_before = cudnn.deterministic, cudnn.benchmark
    torch.use_deterministic_algorithms(is_on)
    if is_on:
        cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    except RuntimeError as error:
        operation = operation_without_form(str(error)) if is_on else None
        if operation is None:
            raise
        raise _not_deterministic(operation) from error
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        cudnn.deterministic, cudnn.benchmark = cudnn_before


def operation_without_form(text: str) -> str | None:
    """Return the operation for which torch's message ``text`` reports no deterministic implementation.

    Return None for any other message.
    """
    found = _NOT_DETERMINISTIC.search(text)
    return None if found is None else found[1].strip()


def _not_deterministic(operation: str) -> SettingError:
    remedy = f"{operation} has none on this device: use another operation, or deterministic=false"
    return refuse("deterministic", True, "operations with a deterministic implementation", remedy)
