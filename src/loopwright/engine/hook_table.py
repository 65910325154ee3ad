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
        names: hooks to bind. Hooks that a validation loop defines need not be methods of `Callback`.
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
    """Report an exception of the body to ``hooks``, and raise it again with the errors of the hooks as notes."""
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
    """Call all hooks, even if one raises. The first exception is raised at the end, with the later ones as notes.

    Args:
        hooks: functions that release resources.
        ended_by: exception because of which the trainer is closed; None: there is none. All errors are added to it as
            notes, and the calling function raises it again.
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
