"""`in_first_process`, which calls a function in process 0 and shares its result or its error with all processes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from loopwright.errors import CheckpointError, SaveError, SettingError
from loopwright.protocols import Ranks

_ERRORS: dict[str, type[RuntimeError]] = {"SaveError": SaveError, "CheckpointError": CheckpointError}


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
        except SettingError as error:
            raised, answer = error, ["SettingError", [error.setting, error.problem]]
        except (SaveError, CheckpointError) as error:
            raised, answer = error, [type(error).__name__, [str(error)]]
    kind, shared = json.loads(ranks.share_bytes(None if answer is None else json.dumps(answer).encode()))
    if raised is not None:
        raise raised
    if kind == "SettingError":
        raise SettingError(*shared)
    if kind is not None:
        raise _ERRORS[kind](*shared)
    return shared
