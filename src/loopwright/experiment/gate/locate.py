"""`locate`, which imports the class or function that a ``_target_`` names, and checks which package defines it."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from types import ModuleType

from loopwright.errors import SettingError, did_you_mean, refuse
from loopwright.experiment.gate.allow import EXTRAS, LISTED_TARGETS
from loopwright.experiment.gate.tree import TARGET, join
from loopwright.experiment.gate.trust import Trust, is_inside, serve_from_cwd


def locate(name: str, trust: Trust, path: str = "") -> Callable[..., object]:
    """Import a class or function whose name `check_targets` has accepted.

    Args:
        name: dotted name of the class or function.
        trust: packages that the user trusts.
        path: path of the node in the configuration, for messages.

    Raises:
        SettingError: if the module cannot be imported, if no object has this name, if the object is neither a class nor
            a function, or if another package defines the object. For example, `os.system` is refused even if a trusted
            package imports it. The object of a name in `LISTED_TARGETS` must be defined in the package with the first
            component of this name.
    """
    is_listed = name in LISTED_TARGETS
    package = name.partition(".")[0] if is_listed else trust.package_of(name)
    where = join(path, TARGET)
    if package is None:
        raise refuse(where, name, "a class or function that Loopwright allows, or one in a package that you trust")
    serve_from_cwd(trust)
    found = _follow(name, package, where)
    if not (inspect.isclass(found) or inspect.isfunction(found)):
        raise refuse(where, name, "a class or a function", f"it is a {type(found).__name__}")
    home = getattr(found, "__module__", None)
    if not isinstance(home, str) or not is_inside(home, package):
        raise refuse(where, name, f"an object defined in {package}", f"it is defined in {home}")
    if is_listed and found.__name__ != name.rpartition(".")[2]:
        raise refuse(
            where, name, "the name in the object's definition", f"it is defined as {home}.{found.__qualname__}"
        )
    return found


def _follow(name: str, package: str, where: str) -> object:
    """Look up each component of the dotted ``name``. Import only ``package``, its parents and its submodules."""
    parts = name.split(".")
    found: object = _import(parts[0], name, where)
    for i, part in enumerate(parts[1:], start=1):
        if isinstance(found, ModuleType):
            if not is_inside(found.__name__, package) and not is_inside(package, found.__name__):
                refers = f"{'.'.join(parts[:i])} is the module {found.__name__}"
                raise refuse(where, name, f"an object defined in {package}", refers)
            if not hasattr(found, part):
                _import(".".join(parts[: i + 1]), name, where, parent=found)
        elif not inspect.isclass(found):
            raise refuse(where, name, "a class or a function", f"{'.'.join(parts[:i])} is not a module or a class")
        if not hasattr(found, part):
            raise _nothing_there(found, part, name, where)
        found = getattr(found, part)
    return found


def _import(module: str, name: str, where: str, parent: ModuleType | None = None) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if parent is not None and error.name == module:
            raise _nothing_there(parent, module.rpartition(".")[2], name, where) from error
        extra = EXTRAS.get(module) if error.name == module else None
        remedy = f"{error}" if extra is None else f"{module} is not installed: pip install 'loopwright[{extra}]'"
        raise SettingError(where, f"={name!r}: expected an importable module; {remedy}.") from error
    except (SyntaxError, SystemExit) as error:  # SystemExit: the module calls sys.exit() when it is imported
        what = f"{type(error).__name__}: {error}"
        raise SettingError(where, f"={name!r}: expected an importable module; {what}.") from error


def _nothing_there(holder: object, part: str, name: str, where: str) -> SettingError:
    options = [option for option in dir(holder) if not option.startswith("_")]
    label = getattr(holder, "__name__", type(holder).__name__)
    return SettingError(where, f"={name!r}: {label} has no {part}.{did_you_mean(part, options)}")
