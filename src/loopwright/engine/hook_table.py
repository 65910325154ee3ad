"""Functions that bind and call the hooks of callbacks.

The hook table is a mapping from each hook name to the bound methods of the callbacks that implement the hook.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from loopwright.hooks import HOOKS, Callback, implements

Hook = Callable[..., None]
Hooks = Mapping[str, tuple[Hook, ...]]


def bind_hooks(callbacks: Sequence[tuple[str, Callback]], names: Iterable[str] = HOOKS) -> dict[str, tuple[Hook, ...]]:
    """Return the bound methods of each hook, in the order of ``callbacks``. A hook may have no methods.

    Args:
        callbacks: pairs of name and callback. A note with the name is added to exceptions of the callback.
        names: names of the hooks to bind. A validation loop may define hooks that are not methods of `Callback`.
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
    """Pass an exception of the ``with`` block to each hook, and raise this exception again.

    Errors of the hooks are added to the exception as notes.
    """
    try:
        yield
    except Exception as error:
        for hook in hooks:
            try:
                hook(trainer, error)
            except Exception as another:  # noqa: BLE001  (an exception of a hook must not replace ``error``)
                _note_another(error, "While this exception was reported to callbacks", another)
        raise


def close_all(hooks: tuple[Hook, ...], ended_by: BaseException | None = None) -> None:
    """Call all hooks, even if a hook raises an exception.

    After the last call, the first exception is raised. Later exceptions are added to the first exception as notes.

    Args:
        hooks: functions that release resources.
        ended_by: exception that ended the run. If ``ended_by`` is given, all errors of the hooks are added to it as
            notes, and this function raises no exception.
    """
    first = ended_by
    for hook in hooks:
        try:
            hook()
        except BaseException as error:  # noqa: BLE001  (the next hooks must also release files and processes)
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
