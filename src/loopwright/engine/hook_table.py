"""Functions that bind and call the hooks of callbacks.

The hook table contains, for each hook, the bound methods of the callbacks that implement this hook.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from loopwright.hooks import HOOKS, Callback, implements

Hook = Callable[..., None]
Hooks = Mapping[str, tuple[Hook, ...]]


def bind_hooks(callbacks: Sequence[tuple[str, Callback]], names: Iterable[str] = HOOKS) -> dict[str, tuple[Hook, ...]]:
    """Return the methods to call for each hook, in the order of ``callbacks``; an empty tuple if there are none.

    Args:
        callbacks: pairs of name and callback; the name is added to exceptions of the callback as a note.
        names: names of the hooks to bind. Hooks that a validation loop defines need not be methods of `Callback`.
    """
    return {
        hook: tuple(
            _noted(getattr(callback, hook), f"{name}.{hook}")
            for name, callback in callbacks
            if implements(callback, hook)
        )
        for hook in names
    }


def call_hooks(hooks: tuple[Hook, ...], *args: Any) -> None:
    """Call each hook in order."""
    for hook in hooks:
        hook(*args)


@contextmanager
def reporting(hooks: tuple[Hook, ...], trainer: Any) -> Iterator[None]:
    """Pass an exception of the ``with`` block to each hook, then raise it again. Errors of the hooks become notes."""
    try:
        yield
    except Exception as error:
        for hook in hooks:
            try:
                hook(trainer, error)
            except Exception as another:  # noqa: BLE001  (the run ends with the first exception)
                _note_another(error, "While this exception was reported to callbacks", another)
        raise


def close_all(hooks: tuple[Hook, ...], ended_by: BaseException | None = None) -> None:
    """Call all hooks, even if one raises. Raise the first exception at the end, with later exceptions as notes.

    Args:
        hooks: functions that release resources.
        ended_by: exception that caused the closing; None: no exception. If it is given, all errors of the hooks are
            added to it as notes, and this function raises nothing.
    """
    first = ended_by
    for hook in hooks:
        try:
            hook()
        except BaseException as error:  # noqa: BLE001  (the other hooks must release files and processes, too)
            if first is None:
                first = error
            else:
                _note_another(first, "While the trainer was closed", error)
    if first is not None and first is not ended_by:
        raise first


def _note_another(error: BaseException, when: str, another: BaseException) -> None:
    notes = " ".join(getattr(another, "__notes__", []))
    error.add_note(f"{when}: {type(another).__name__}: {another}. {notes}".rstrip())


def _noted(method: Hook, label: str) -> Hook:
    def call(*args: Any) -> None:
        try:
            method(*args)
        except BaseException as error:
            error.add_note(f"Raised in callback {label}.")
            raise

    return call
