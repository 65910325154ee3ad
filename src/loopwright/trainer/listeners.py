"""`Listeners`, which contains the loops, callbacks and loggers whose hooks a trainer calls."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from loopwright.checkpoint import Checkpointing, check_state
from loopwright.engine.hook_table import Hook, bind_hooks, call_hooks, close_all
from loopwright.engine.parts import Parts
from loopwright.engine.state import stateful_callbacks, stateful_loggers
from loopwright.errors import refuse_type
from loopwright.hooks import HOOKS, Callback, Logger
from loopwright.loggers import default_loggers
from loopwright.loop import LoopCallback, TrainingLoop, ValidationLoop
from loopwright.trainer.hook_checks import check_hooks, unknown_hooks


class Listeners:
    """The loop, the callbacks, the loggers and the `Checkpointing` of a trainer. Their hooks are called in this order.

    Args:
        loop: loop of the trainer.
        callbacks: a list of callbacks, or a mapping from names to callbacks. A checkpoint stores each callback's
            state under its name.
        loggers: a list of loggers, or a mapping from names to loggers; None: see `default_loggers`.
        checkpoint: settings of the checkpoints; None: no checkpoints are saved.

    Raises:
        SettingError: if a callback or a logger has a wrong type.
    """

    def __init__(self, loop: LoopCallback, callbacks: Any, loggers: Any, checkpoint: Checkpointing | None) -> None:
        self._loop = loop
        self._callbacks = _name_callbacks(callbacks, Callback, "callbacks")
        self._loggers = _name_callbacks(default_loggers() if loggers is None else loggers, Logger, "loggers")
        self._checkpoint = [] if checkpoint is None else [("Checkpointing", checkpoint)]
        self._known_hooks = {*HOOKS}
        self._warned: set[str] = set()

    @property
    def callbacks(self) -> tuple[Callback, ...]:
        """The callbacks, in order."""
        return tuple(callback for _, callback in self._callbacks)

    @property
    def named_callbacks(self) -> dict[str, Callback]:
        """The callbacks by name."""
        return dict(self._callbacks)

    @property
    def loggers(self) -> tuple[Logger, ...]:
        """The loggers, in order."""
        return tuple(logger for _, logger in self._loggers)

    def named(self, loop: LoopCallback | None = None) -> list[tuple[str, Callback]]:
        """Return pairs of name and listener. If ``loop`` is not the loop of the trainer, ``loop`` comes first."""
        loops = [self._loop] if loop is None or loop is self._loop else [loop, self._loop]
        return [*((type(each).__name__, each) for each in loops), *self._callbacks, *self._loggers, *self._checkpoint]

    def running(self) -> str | None:
        """Return the name of the listener whose method is the innermost in the call stack; None if no method is there.

        The stack is searched only when a fit is stopped. The alternative, to record the listener of each hook call,
        would slow down every step.
        """
        names = {id(listener): name for name, listener in self.named()}
        here = inspect.currentframe()
        frame = None if here is None else here.f_back
        del here  # a frame that refers to itself is freed only by the garbage collector
        while frame is not None:
            name = names.get(id(frame.f_locals.get("self")))
            if name is not None:
                return name
            frame = frame.f_back
        return None

    def bind(self, loop: ValidationLoop) -> dict[str, tuple[Hook, ...]]:
        """Return the bound methods of the listeners for each hook, including the hooks that ``loop`` defines.

        Raises:
            SettingTypeError: if a hook cannot be called with its arguments.
        """
        is_given = not isinstance(self._loop, TrainingLoop) or loop is not self._loop.val_loop
        listeners = self.named(loop if is_given else None)
        for name, callback in listeners:
            check_hooks(name, callback, loop.hook_names)
        own_hooks = {*loop.hook_names.values()}
        self._known_hooks |= own_hooks
        return bind_hooks(listeners, {*HOOKS, *own_hooks})

    def set_up(self, parts: Parts, loop: ValidationLoop) -> None:
        """Set the hooks and the loggers of ``parts``, and call the hooks ``pre_setup``, ``setup`` and ``post_setup``.

        If an error occurs, ``finalize`` of all listeners is called.

        Raises:
            SettingError: if the state of a listener cannot be saved. The message names the path of the value.
            SettingTypeError: if a hook cannot be called with its arguments.
        """
        parts.hooks = self.bind(loop)
        self.warn_of_unknown_hooks(stacklevel=4)
        bound = bind_hooks(self._loggers, ("log_metrics", "log_timing"))
        parts.log.connect(bound["log_metrics"], bound["log_timing"])
        try:
            for hook in ("pre_setup", "setup", "post_setup"):
                call_hooks(parts.hooks[hook], parts.trainer)
            self._check_states()
        except BaseException as error:
            close_all(parts.hooks["finalize"], error)
            raise

    def warn_of_unknown_hooks(self, *, has_run: bool = False, stacklevel: int) -> None:
        """Warn once about each method whose name begins with ``on_`` and is not the name of a hook.

        Args:
            has_run: whether a fit has ended. Before, a method gets no warning if a `ValidationLoop` may define a hook
                with its name. The user may give this loop to `Trainer.validate`, even inside a fit.
            stacklevel: number of frames from this method to the user's line.
        """
        for name, callback in self.named():
            for method, hook, may_be_later in unknown_hooks(callback, self._known_hooks):
                label = f"{name}.{method}"
                if label not in self._warned and (has_run or not may_be_later):
                    self._warned.add(label)
                    hint = "" if hook is None else f" Did you mean {hook}?"
                    warnings.warn(f"{label} is never called: no hook has this name.{hint}", stacklevel=stacklevel)

    def warn_if_unheard(self, loop: ValidationLoop, hooks: dict[str, tuple[Hook, ...]]) -> None:
        """Warn if no listener implements a hook that ``loop`` defines, and ``loop`` defines at least one hook."""
        own = sorted(set(loop.hook_names.values()) - set(HOOKS))
        if own and not any(hooks[name] for name in own):
            hook_names = f"{type(loop).__name__} defines the hooks {', '.join(own)}"
            warnings.warn(f"{hook_names}, but no callback or logger implements any of them.", stacklevel=4)

    def _check_states(self) -> None:
        for name, callback in stateful_callbacks(self.named()).items():
            check_state(callback.state_dict(), f"callbacks.{name}")
        for name, logger in stateful_loggers(self.named()).items():
            check_state(logger.state_dict(), f"loggers.{name}")


def _name_callbacks(given: Any, kind: type[Callback], setting: str) -> list[tuple[str, Any]]:
    """Return pairs of name and callback. The name is the key in a mapping, or the class name in a list.

    Raises:
        SettingTypeError: if an object is not of class ``kind``, or if a logger is given as a callback.
    """
    if not isinstance(given, Mapping | Sequence | None):
        raise refuse_type(setting, given, f"a list or a mapping of objects of class {kind.__name__}")
    entries = given.items() if isinstance(given, Mapping) else [(None, entry) for entry in given or ()]
    named = []
    for name, entry in entries:
        if not isinstance(entry, kind):
            raise refuse_type(setting, entry, f"objects of class {kind.__name__}")
        if kind is Callback and isinstance(entry, Logger):
            raise refuse_type(setting, entry, "callbacks", "give loggers as loggers=[…]")
        named.append((type(entry).__name__ if name is None else str(name), entry))
    return named
