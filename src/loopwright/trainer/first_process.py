"""Functions that call a function in one or all of the processes that train together, and share its errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from loopwright.engine.gathering import gather_values
from loopwright.errors import CheckpointError, SaveError, SettingError
from loopwright.protocols import Ranks

_T = TypeVar("_T")
_ERRORS: dict[str, type[RuntimeError]] = {"SaveError": SaveError, "CheckpointError": CheckpointError}
SHARED_ERRORS = (SaveError, CheckpointError, SettingError)


def in_first_process(ranks: Ranks, act: Callable[[], Any]) -> Any:
    """Call ``act`` in process 0, and return its result in every process. The result must be a JSON value.

    Raises:
        SaveError, CheckpointError, SettingError: in every process, if ``act`` raises this error in process 0.
    """
    if ranks.world_size == 1:
        return act()
    answer: list[Any] | None = None
    raised: Exception | None = None
    if not ranks.rank:
        try:
            answer = [None, act()]
        except SHARED_ERRORS as error:
            raised, answer = error, spell_error(error)
    kind, shared = json.loads(ranks.share_bytes(None if answer is None else json.dumps(answer).encode()))
    if raised is not None:
        raise raised
    if kind is not None:
        raise build_error(kind, shared)
    return shared


def in_every_process(ranks: Ranks, act: Callable[[], _T]) -> _T:
    """Call ``act`` in every process, and return its result. If it raises in a process, every process raises.

    Raises:
        SaveError, CheckpointError, SettingError: in every process, the error of the first process that raised one.
    """
    if ranks.world_size == 1:
        return act()
    result: list[_T] = []
    raised: Exception | None = None
    try:
        result.append(act())
    except SHARED_ERRORS as error:
        raised = error
    answers = gather_values(ranks, None if raised is None else spell_error(raised))
    for rank, answer in enumerate(answers):
        if answer is not None:
            raise build_error(*answer) if raised is None or rank != ranks.rank else raised
    return result[0]


def spell_error(error: Exception) -> list[Any]:
    """Return an error, one of `SHARED_ERRORS`, as a JSON value for `build_error`."""
    if isinstance(error, SettingError):
        return ["SettingError", [error.setting, error.problem]]
    return [type(error).__name__, [str(error)]]


def build_error(kind: str, arguments: list[str]) -> Exception:
    """Return the error that `spell_error` has spelled."""
    return SettingError(*arguments) if kind == "SettingError" else _ERRORS[kind](*arguments)
