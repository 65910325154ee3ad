"""`Trust`: the packages that the user, and never a configuration, allows to run their code.

Trust is typed (``--trust NAME``) or stands in the user's own project (``[tool.loopwright] trust = ["my_pkg"]`` in the
``pyproject.toml`` of the current directory, for installed packages only).
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

from loopwright.errors import refuse

_DOTTED_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """Packages whose classes and functions a configuration may name.

    Args:
        packages: dotted names; each stands for itself and all that lies in it.
        from_cwd: those top-level names among them that are not installed and are imported from ``cwd``.
        cwd: the directory from which they are imported.
    """

    packages: tuple[str, ...] = ()
    from_cwd: tuple[str, ...] = ()
    cwd: Path | None = None

    def package_of(self, name: str) -> str | None:
        """The trusted package in which the dotted ``name`` lies, or None."""
        for package in self.packages:
            if is_inside(name, package):
                return package
        return None


NO_TRUST = Trust()


def is_dotted_name(name: str) -> bool:
    """Whether ``name`` is one or more plain identifiers joined by dots."""
    return _DOTTED_NAME.fullmatch(name) is not None


def is_inside(name: str, package: str) -> bool:
    """Whether the dotted ``name`` is ``package`` or lies in it."""
    return name == package or name.startswith(f"{package}.")


def read_trust(names: Sequence[str], cwd: Path) -> Trust:
    """What the user trusts: the names typed, and those of the current directory's ``pyproject.toml``.

    Nothing is imported. Names taken from the file are announced in one line on stderr.

    Args:
        names: the values of ``--trust``, dotted names of packages or modules. One that is not installed is
            imported from ``cwd``.
        cwd: the current directory.

    Raises:
        SettingError: for a name that is no dotted name or is found nowhere, and for an entry of the file that is
            not an installed package.
    """
    from_cwd = []
    for name in names:
        if not is_dotted_name(name):
            raise refuse("--trust", name, "the dotted name of a package")
        top = name.partition(".")[0]
        if not _is_installed(top, cwd):
            if PathFinder.find_spec(top, [str(cwd)]) is None:
                expected = f"an installed package, or a module or package in {cwd}"
                raise refuse("--trust", name, expected, "install it, or start from the directory that holds it")
            from_cwd.append(top)
    recorded = _recorded_trust(cwd)
    if recorded:
        print(f"loopwright: trusted by {cwd / 'pyproject.toml'}: {', '.join(recorded)}", file=sys.stderr)
    return Trust(packages=tuple(dict.fromkeys([*names, *recorded])), from_cwd=tuple(dict.fromkeys(from_cwd)), cwd=cwd)


def serve_from_cwd(trust: Trust) -> None:
    """Make the names of ``trust.from_cwd`` importable, and nothing else that lies beside them."""
    for name in trust.from_cwd:
        finder = _OneNameFinder(name, str(trust.cwd))
        if finder not in sys.meta_path:
            sys.meta_path.append(finder)


@dataclass(frozen=True, slots=True)
class _OneNameFinder:
    """Finds one top-level module in one directory, so that the directory itself need not be on ``sys.path``."""

    name: str
    directory: str

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of the one name; None for every other."""
        return PathFinder.find_spec(fullname, [self.directory]) if fullname == self.name and path is None else None


def _is_installed(top: str, cwd: Path) -> bool:
    """Whether ``top`` is found by the import system with ``cwd`` left out."""
    elsewhere = [entry for entry in sys.path if entry and Path(entry).resolve() != cwd.resolve()]
    for finder in sys.meta_path:
        if isinstance(finder, _OneNameFinder):
            continue
        path = elsewhere if finder is PathFinder else None
        if finder.find_spec(top, path) is not None:
            return True
    return False


def _recorded_trust(cwd: Path) -> list[str]:
    """The checked names under ``[tool.loopwright] trust`` of the ``pyproject.toml`` in ``cwd``."""
    file = cwd / "pyproject.toml"
    if not file.is_file():
        return []
    setting = "pyproject.toml: tool.loopwright.trust"
    try:
        names: object = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise refuse("pyproject.toml", str(file), "a file in TOML", str(error)) from error
    for key in ("tool", "loopwright"):
        names = names.get(key, {}) if isinstance(names, dict) else names
    names = names.get("trust", []) if isinstance(names, dict) else names
    if not isinstance(names, list) or not all(isinstance(name, str) and is_dotted_name(name) for name in names):
        raise refuse(setting, names, "a list of dotted names of packages")
    for name in names:
        top = name.partition(".")[0]
        # A folder that somebody shared brings its own pyproject.toml: `subprocess` in it must not be enough.
        if top in sys.stdlib_module_names or not _is_installed(top, cwd):
            raise refuse(setting, name, "an installed package other than Python's own", f"type --trust {name} instead")
    return names
