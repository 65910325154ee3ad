"""Determinism: what torch and the libraries of an accelerator are told, so that a run gives the same numbers again."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from loopwright.errors import SettingError, refuse

_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
_DETERMINISTIC_WORKSPACES = (":4096:8", ":16:8")  # torch's notes on reproducibility: all that cuBLAS promises it for
_NO_FORM = re.compile(r"([^\n:]+) does not have a deterministic implementation")


@contextmanager
def deterministic_workspace(*, is_needed: bool) -> Iterator[None]:
    """Give cuBLAS a workspace with which it is deterministic, unless the user has, and take it back.

    cuBLAS and torch read the variable once in a process, when they first multiply: this is to surround all that may
    touch a device, the jobs of a sweep that do not need it included.

    Raises:
        SettingError: where it is needed, for a workspace of the user's own that is not deterministic.
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
    """Let torch use deterministic operations only, or any, and give back what was set before.

    Raises:
        SettingError: in place of torch's `RuntimeError`, naming an operation that has no deterministic form.
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
        named = operation_without_form(str(error)) if is_on else None
        if named is None:
            raise
        raise _without_form(named) from error
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        cudnn.deterministic, cudnn.benchmark = cudnn_before


def operation_without_form(text: str) -> str | None:
    """The operation that has no deterministic form, of which an error or a warning of torch's tells; None: of none."""
    named = _NO_FORM.search(text)
    return None if named is None else named[1].strip()


def _without_form(operation: str) -> SettingError:
    remedy = f"{operation} has none on this device: use another operation, or deterministic=false"
    return refuse("deterministic", True, "operations that have a deterministic form", remedy)
