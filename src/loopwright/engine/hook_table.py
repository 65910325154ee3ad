"""Hooks bound once per run: who listens to what, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from loopwright.hooks import HOOKS, Callback, implements

Hook = Callable[..., None]
Hooks = Mapping[str, tuple[Hook, ...]]


def bind_hooks(callbacks: Sequence[tuple[str, Callback]], names: Iterable[str] = HOOKS) -> dict[str, tuple[Hook, ...]]:
    """The methods to call for each hook, in the order of ``callbacks``; those that nobody overrides are empty.

    Args:
        callbacks: (name, callback); the name appears in the note of an exception.
        names: hooks to bind; those of a validation loop of its own need not be methods of `Callback`.
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
    """Tell ``hooks`` of an exception that leaves the body, and let it go on, also where one of them raises another."""
    try:
        yield
    except Exception as error:
        for hook in hooks:
            try:
                hook(trainer, error)
            except Exception as another:  # noqa: BLE001  (the first one is what the run ends by)
                _note_another(error, "While it was reported", another)
        raise


def close_all(hooks: tuple[Hook, ...], ended_by: BaseException | None = None) -> None:
    """Call each hook, whatever another raises; the first exception goes on, and has a note of each that came after it.

    Args:
        hooks: that release what callbacks hold.
        ended_by: an exception that is on its way already, which its owner raises again.
    """
    first = ended_by
    for hook in hooks:
        try:
            hook()
        except BaseException as error:  # noqa: BLE001  (the others hold files and processes, too)
            if first is None:
                first = error
            else:
                _note_another(first, "While callbacks were closed", error)
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
