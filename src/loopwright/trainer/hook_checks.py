"""Functions that find methods of callbacks that are probably misspelled hooks, and hooks that cannot be called."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from loopwright.errors import SettingTypeError, nearest
from loopwright.hooks import HOOKS, Callback, Logger, implements

# Hook names of other frameworks, with the hook of Loopwright that is called at a similar time. For any other unknown
# name, the hook with the most similar spelling is suggested.
_ELSEWHERE = {
    "on_batch_begin": "on_train_batch_start",
    "on_batch_end": "on_train_batch_end",
    "on_batch_start": "on_train_batch_start",
    "on_epoch_begin": "on_train_start",
    "on_epoch_end": "on_train_end",
    "on_epoch_start": "on_train_start",
    "on_evaluate": "on_validate_end",
    "on_exception": "on_fit_exception",
    "on_save": "on_after_save_checkpoint",
    "on_step_begin": "on_train_batch_start",
    "on_step_end": "on_train_batch_end",
    "on_step_start": "on_train_batch_start",
    "on_train_begin": "on_fit_start",
    "on_train_epoch_end": "on_train_end",
    "on_train_epoch_start": "on_train_start",
    "on_validation_batch_end": "on_validate_batch_end",
    "on_validation_batch_start": "on_validate_batch_start",
    "on_validation_end": "on_validate_end",
    "on_validation_epoch_end": "on_validate_end",
    "on_validation_epoch_start": "on_validate_start",
    "on_validation_start": "on_validate_start",
}
_OF_A_LOOP = re.compile(r"on_\w+_(start|end|exception)")


def unknown_hooks(callback: Callback, known: Collection[str]) -> Iterator[tuple[str, str | None, bool]]:
    """Find the methods of ``callback`` that begin with ``on_`` and are no hooks.

    Args:
        callback: callback to inspect.
        known: names of all hooks, including the hooks that the ``hook`` of a `ValidationLoop` defines.

    Yields:
        The name of the method; the name of a similar hook, or None; and whether a `ValidationLoop` that the trainer
        receives later may define a hook with the name of the method.
    """
    for name in dir(type(callback)):
        if not name.startswith("on_") or name in known or not callable(inspect.getattr_static(type(callback), name)):
            continue
        near = [hook for hook in known if _is_within_edits(name, hook, 2)]
        as_start = name.replace("_begin", "_start")
        meant = _ELSEWHERE.get(name) or (as_start if as_start in known else nearest(name, near or known))
        may_be_later = not near and name not in _ELSEWHERE and _OF_A_LOOP.fullmatch(name) is not None
        yield name, meant, may_be_later


def check_hooks(name: str, callback: Callback, loop_hooks: Mapping[str, str]) -> None:
    """Check that the trainer can call the hooks of ``callback``.

    Args:
        name: name of the callback, for the message.
        callback: callback to check.
        loop_hooks: names of the hooks that a `ValidationLoop` defines, by event. The hook for an event takes the
            arguments of ``on_validate_<event>``.

    Raises:
        SettingTypeError: if a hook is not callable, or takes other arguments. Also if a hook is a generator or a
            coroutine, because a call would not run its body. The message names the hook.
    """
    methods = {hook: getattr(Callback, hook) for hook in (*HOOKS, "state_dict", "load_state_dict")}
    methods |= {hook: getattr(Callback, f"on_validate_{event}") for event, hook in loop_hooks.items()}
    if isinstance(callback, Logger):
        methods |= {hook: getattr(Logger, hook) for hook in ("log_metrics", "log_timing", "log_text")}
    for hook, base in methods.items():
        if implements(callback, hook):
            _check_call(f"{name}.{hook}", getattr(callback, hook), [*inspect.signature(base).parameters][1:])


def _check_call(label: str, method: Any, arguments: list[str]) -> None:
    expected = f"expected a method with the parameters ({', '.join(arguments)})"
    if not callable(method):
        raise SettingTypeError(label, f"={method!r:.80}: {expected}.")
    for is_other, kind in (
        (inspect.iscoroutinefunction, "a coroutine (async def)"),
        (inspect.isasyncgenfunction, "an asynchronous generator"),
        (inspect.isgeneratorfunction, "a generator (its body has yield)"),
    ):
        if is_other(method):
            raise SettingTypeError(label, f": {kind}, of which a call runs nothing; expected an ordinary method.")
    try:
        signature = inspect.signature(method)
    except (TypeError, ValueError):
        if inspect.ismethod(method):  # a method without self
            raise SettingTypeError(label, f": {expected} after self.") from None
        return  # `inspect` may find no signature of a function written in C
    try:
        signature.bind(*arguments)
    except TypeError:
        raise SettingTypeError(label, f"({', '.join(signature.parameters)}): {expected}.") from None


def _is_within_edits(a: str, b: str, limit: int) -> bool:
    """Return whether at most ``limit`` insertions, deletions and substitutions turn ``a`` into ``b`` (Levenshtein)."""
    if abs(len(a) - len(b)) > limit:
        return False
    previous = list(range(len(b) + 1))
    for i, char in enumerate(a, start=1):
        row = [i]
        for j, other in enumerate(b, start=1):
            row.append(min(previous[j] + 1, row[j - 1] + 1, previous[j - 1] + (char != other)))
        previous = row
    return previous[-1] <= limit
