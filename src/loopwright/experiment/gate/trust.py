"""`Trust`: the packages whose code the user allows a configuration to run.

The user trusts a package with ``--trust NAME``, or with ``[tool.loopwright] trust = ["my_pkg"]`` in the
``pyproject.toml`` of the current directory. That file may name only installed packages outside the standard library.
A configuration cannot trust a package.
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
        packages: dotted names of packages or modules; their submodules are included.
        from_cwd: top-level names of the trusted packages that are not installed. They are imported from ``cwd``.
        cwd: directory from which the packages in ``from_cwd`` are imported. It may be None if ``from_cwd`` is empty.
    """

    packages: tuple[str, ...] = ()
    from_cwd: tuple[str, ...] = ()
    cwd: Path | None = None

    def package_of(self, name: str) -> str | None:
        """Return the trusted package that contains the dotted ``name``, or None if no trusted package contains it."""
        for package in self.packages:
            if is_inside(name, package):
                return package
        return None


NO_TRUST = Trust()


def is_dotted_name(name: str) -> bool:
    """Return whether ``name`` consists of ASCII identifiers joined by dots."""
    return _DOTTED_NAME.fullmatch(name) is not None


def is_inside(name: str, package: str) -> bool:
    """Return whether the dotted ``name`` is the name of ``package`` or of an object inside ``package``."""
    return name == package or name.startswith(f"{package}.")


def read_trust(names: Sequence[str], cwd: Path) -> Trust:
    """Read the trusted names from the command line and from ``pyproject.toml`` in the current directory.

    No package is imported. If the file names packages, a line on stderr lists them.

    Args:
        names: values of ``--trust``: dotted names of packages or modules. Packages that are not installed will be
            imported from ``cwd``.
        cwd: current directory.

    Raises:
        SettingError: if a value of ``--trust`` is not a dotted name or its package is not found, if the file is not
            valid TOML, or if an entry of the file is not an installed package outside the standard library.
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
    """Make the packages in ``trust.from_cwd`` importable from ``trust.cwd``, but no other module in this directory."""
    for name in trust.from_cwd:
        finder = _OneNameFinder(name, str(trust.cwd))
        if finder not in sys.meta_path:
            sys.meta_path.append(finder)


@dataclass(frozen=True, slots=True)
class _OneNameFinder:
    """Import finder for one top-level module in one directory. The directory need not be on ``sys.path``."""

    name: str
    directory: str

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of this module, or None for any other name."""
        return PathFinder.find_spec(fullname, [self.directory]) if fullname == self.name and path is None else None


def _is_installed(top: str, cwd: Path) -> bool:
    """Return whether the import system finds the top-level module ``top`` outside the directory ``cwd``."""
    elsewhere = [entry for entry in sys.path if entry and Path(entry).resolve() != cwd.resolve()]
    for finder in sys.meta_path:
        if isinstance(finder, _OneNameFinder):
            continue
        path = elsewhere if finder is PathFinder else None
        if finder.find_spec(top, path) is not None:
            return True
    return False


def _recorded_trust(cwd: Path) -> list[str]:
    """Read and check the names under ``[tool.loopwright] trust`` in the ``pyproject.toml`` of ``cwd``."""
    file = cwd / "pyproject.toml"
    if not file.is_file():
        return []
    setting = "pyproject.toml: tool.loopwright.trust"
    try:
        names: object = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise refuse("pyproject.toml", str(file), "valid TOML", str(error)) from error
    for key in ("tool", "loopwright"):
        names = names.get(key, {}) if isinstance(names, dict) else names
    names = names.get("trust", []) if isinstance(names, dict) else names
    if not isinstance(names, list) or not all(isinstance(name, str) and is_dotted_name(name) for name in names):
        raise refuse(setting, names, "a list of dotted names of packages")
    for name in names:
        top = name.partition(".")[0]
        # A downloaded folder may contain a pyproject.toml that names `subprocess`, which must not become trusted.
        if top in sys.stdlib_module_names or not _is_installed(top, cwd):
            expected = "an installed package outside the standard library"
            raise refuse(setting, name, expected, f"use --trust {name} instead")
    return names
