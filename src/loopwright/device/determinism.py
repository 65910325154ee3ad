"""`deterministic_operations`, which configures torch and cuDNN for reproducible results."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from loopwright.errors import SettingError, refuse

_NOT_DETERMINISTIC = re.compile(r"([^\n:]+) does not have a deterministic implementation")


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
