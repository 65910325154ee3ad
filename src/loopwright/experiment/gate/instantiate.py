"""`instantiate`, which builds the objects that a configuration describes. No other module calls targets.

A target is the class or function that a ``_target_`` names. Before a target is imported, its name must be on the
allow-list or in a trusted package. Before a target is called, its arguments are checked. Hydra also looks up the
target, and refuses targets on Hydra's own list of forbidden targets. Hydra receives only the name of the target.
Therefore, Hydra cannot interpolate the arguments again.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import hydra.utils
from hydra.errors import HydraException

from loopwright.errors import SettingError, on_one_line, text_of
from loopwright.experiment.gate.call_arguments import check_arguments
from loopwright.experiment.gate.locate import locate
from loopwright.experiment.gate.tree import ARGS, PARTIAL, RECURSIVE, SPECIAL_KEYS, TARGET, join
from loopwright.experiment.gate.trust import Trust

# Exceptions that are reported as wrong arguments. A RuntimeError, which torch raises, is also reported as wrong
# arguments. All other exceptions have other causes, such as a full disk, a damaged checkpoint or a bug in the class.
_SETTING_FAULTS = (ValueError, TypeError, AssertionError, ArithmeticError, LookupError, ImportError, HydraException)

_MAX_CHARACTERS = 300  # maximum length of an error message from the user's code


def instantiate(node: object, trust: Trust, path: str = "") -> object:
    """Build the object that a node of a resolved configuration describes.

    Args:
        node: nested dicts, lists and scalars. A dict with ``_target_`` becomes the return value of the target. With
            ``_partial_: true``, the dict becomes a `functools.partial` of the target. In other dicts and in lists, each
            entry is built. Scalars are returned unchanged.
        trust: packages that the user trusts.
        path: path of the node in the configuration, for messages.

    Returns:
        The object. Dicts and lists are new copies.

    Raises:
        SettingError: if `check_arguments` refuses the node, or if a target refuses its arguments. The message contains
            the path of the node. Other exceptions of a target propagate with a note.
    """
    check_arguments(node, trust, path)
    return _build(node, trust, path)


@dataclass(frozen=True, slots=True)
class Factory:
    """Callable that builds the object described by a checked node of a configuration. Each call builds a new object."""

    node: object
    trust: Trust
    path: str

    def __call__(self) -> object:
        """Return a new object."""
        return instantiate(self.node, self.trust, self.path)


def factory(node: object, trust: Trust, path: str = "") -> Factory:
    """Check a node, and return a callable that builds its object. A `Trainer` accepts this callable as ``model``.

    Raises:
        SettingError: for a node that `check_arguments` refuses.
    """
    check_arguments(node, trust, path)
    return Factory(node, trust, path)


def _build(node: object, trust: Trust, path: str, is_recursive: bool = True) -> object:
    """Build the object of a checked node. If ``is_recursive`` is False, only copy the node.

    ``is_recursive`` is False for the arguments of a node with ``_recursive_: false``.
    """
    if isinstance(node, (list, tuple)):
        return [_build(value, trust, join(path, i), is_recursive) for i, value in enumerate(node)]
    if not isinstance(node, dict):
        return node
    if not is_recursive or TARGET not in node:
        return {key: _build(value, trust, join(path, key), is_recursive) for key, value in node.items()}
    is_recursive = node.get(RECURSIVE, True)
    positional = [
        _build(value, trust, join(join(path, ARGS), i), is_recursive) for i, value in enumerate(node.get(ARGS, ()))
    ]
    named = {
        key: _build(value, trust, join(path, key), is_recursive)
        for key, value in node.items()
        if key not in SPECIAL_KEYS
    }
    target = locate(node[TARGET], trust, path)
    fenced = _through_hydra(node[TARGET], target, path)
    if node.get(PARTIAL):
        # The partial that Hydra 1.4 returns cannot be pickled and does not show its function.
        return functools.partial(target, *positional, **named)
    return _call(fenced, positional, named, node[TARGET], path)


def _through_hydra(name: str, target: Callable[..., object], path: str) -> Callable[..., object]:
    """Let Hydra build a `functools.partial` of the target. Refuse the target if Hydra finds another object."""
    try:
        with warnings.catch_warnings():
            # Hydra 1.4 warns if it gets no allow-list. Loopwright has already applied its own allow-list. Hydra may
            # still rename its argument for an allow-list, so this argument is not used.
            warnings.filterwarnings("ignore", message=r"hydra\.utils\.instantiate\(\) resolved", category=UserWarning)
            found = hydra.utils.instantiate({TARGET: name, PARTIAL: True})
    except HydraException as error:
        raise SettingError(join(path, TARGET), f"={name!r}: refused by Hydra: {_first_line(error)}") from error
    if not isinstance(found, functools.partial) or found.func is not target:
        raise SettingError(
            join(path, TARGET),
            f"={name!r}: Hydra found another object with this name; define the name only once.",
        )
    return found


def _call(
    target: Callable[..., object], positional: list[object], named: dict[str, object], name: str, path: str
) -> object:
    try:
        return target(*positional, **named)
    except SettingError as error:
        raise error.under(path) from error
    except Exception as error:
        if isinstance(error, _SETTING_FAULTS) or type(error) is RuntimeError:
            problem = f": {name} refused its arguments: {_first_line(error)}"
            if not name.startswith(("loopwright.", "torch.")):  # the user's code raised the error, so its type is shown
                shown = on_one_line(f"{type(error).__name__}: {text_of(error)}", _MAX_CHARACTERS)
                problem = f": {name} raised {shown}"
            raise SettingError(path or name, problem) from error
        error.add_note(f"Raised while {name} was built for {path or 'the configuration'}.")
        raise


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
