"""`Trust`, the packages whose code a configuration may run and the environment variables that it may read.

The user trusts a package with ``--trust NAME``, or with ``[tool.loopwright] trust = ["my_pkg"]`` in the
``pyproject.toml`` of the current directory. The current directory may come from an untrusted source. Therefore, this
file may only name the package of its own project, and the user must have installed the project from this directory. A
configuration cannot trust a package. Only ``--allow-env NAME`` allows environment variables.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

from loopwright.errors import refuse
from loopwright.experiment.console.command_line import permission_flags
from loopwright.experiment.console.messages import complain
from loopwright.experiment.gate.project_file import entry, read_project_file

_SETTING = "pyproject.toml: tool.loopwright.trust"
_DOTTED_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """Packages whose classes and functions a configuration may name, and environment variables that it may read.

    Args:
        packages: dotted names of packages or modules. Their submodules are also trusted.
        from_cwd: top-level names of trusted packages that are not installed and must be imported from ``cwd``.
        cwd: directory from which the packages in ``from_cwd`` are imported; None only if ``from_cwd`` is empty.
        variables: names of environment variables that a configuration may read with ``${oc.env:NAME}``.
    """

    packages: tuple[str, ...] = ()
    from_cwd: tuple[str, ...] = ()
    cwd: Path | None = None
    variables: tuple[str, ...] = ()

    @property
    def flags(self) -> list[str]:
        """The flags of a command that trusts these packages and allows these variables."""
        return permission_flags(self.packages, self.variables)

    def package_of(self, name: str) -> str | None:
        """Return the trusted package that contains the dotted ``name``, or None if no trusted package contains it."""
        for package in self.packages:
            if is_inside(name, package):
                return package
        return None


NO_TRUST = Trust()


def is_dotted_name(name: str) -> bool:
    """Return whether ``name`` consists of ASCII identifiers separated by dots."""
    return _DOTTED_NAME.fullmatch(name) is not None


def is_inside(name: str, package: str) -> bool:
    """Return whether the dotted ``name`` is ``package``, or begins with ``package`` and a dot."""
    return name == package or name.startswith(f"{package}.")


def read_trust(names: Sequence[str], cwd: Path, variables: Sequence[str] = (), *, is_quiet: bool = False) -> Trust:
    """Read the trusted names from the command line and from ``pyproject.toml`` in the current directory.

    No package is imported. If the file names packages, this function prints their names to stderr.

    Args:
        names: values of ``--trust``: dotted names of packages or modules, which are installed or in ``cwd``.
        cwd: current directory.
        variables: values of ``--allow-env``.
        is_quiet: whether to print nothing.

    Raises:
        SettingError: if a value of ``--trust`` is not a dotted name, if a package is not found, if the file is not
            valid TOML, or if the file names a package of another project or a project that is not installed from
            ``cwd``.
    """
    for name in names:
        if not is_dotted_name(name):
            raise refuse("--trust", name, "the dotted name of a package")
    recorded = _recorded_trust(cwd)
    from_cwd = []
    for name in (*names, *recorded):
        top = name.partition(".")[0]
        if not _is_installed(top, cwd):
            if PathFinder.find_spec(top, [str(cwd)]) is None:
                expected = f"an installed package, or a module or package in {cwd}"
                setting = "--trust" if name in names else _SETTING
                raise refuse(setting, name, expected, "install the package, or start in the directory that contains it")
            from_cwd.append(top)
    if recorded and not is_quiet:
        complain(f"loopwright: trusted by {cwd / 'pyproject.toml'}: {', '.join(recorded)}")
    return Trust(
        packages=tuple(dict.fromkeys([*names, *recorded])),
        from_cwd=tuple(dict.fromkeys(from_cwd)),
        cwd=cwd,
        variables=tuple(variables),
    )


def serve_from_cwd(trust: Trust) -> None:
    """Make the packages in ``trust.from_cwd`` importable from ``trust.cwd``, but no other module in this directory."""
    for name in trust.from_cwd:
        finder = _OneNameFinder(name, str(trust.cwd))
        if finder not in sys.meta_path:
            sys.meta_path.append(finder)


@dataclass(frozen=True, slots=True)
class _OneNameFinder:
    """Import finder for one top-level module in one directory that may be missing from ``sys.path``."""

    name: str
    directory: str

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of the module ``name`` in the directory, or None for any other module."""
        return PathFinder.find_spec(fullname, [self.directory]) if fullname == self.name and path is None else None


def _is_installed(top: str, cwd: Path) -> bool:
    """Return whether the import system finds the top-level module ``top`` outside the directory ``cwd``."""
    for finder in sys.meta_path:
        if isinstance(finder, _OneNameFinder):
            continue
        path = _paths_outside(cwd) if finder is PathFinder else None
        if finder.find_spec(top, path) is not None:
            return True
    return False


def _paths_outside(cwd: Path) -> list[str]:
    return [entry for entry in sys.path if entry and Path(entry).resolve() != cwd.resolve()]


def _recorded_trust(cwd: Path) -> list[str]:
    """Read and check the names under ``[tool.loopwright] trust`` in the ``pyproject.toml`` of ``cwd``."""
    content = read_project_file(cwd)
    names = entry(content, "tool", "loopwright", "trust")
    if names is None:
        return []
    if not isinstance(names, list) or not all(isinstance(name, str) and is_dotted_name(name) for name in names):
        raise refuse(_SETTING, names, "a list of dotted names of packages")
    project = entry(content, "project", "name")
    for name in names:
        top = name.partition(".")[0]
        remedy = f"to trust another package, use --trust {name}"
        if not isinstance(project, str) or not project:
            raise refuse(_SETTING, name, "a package of this project, which has no name under project.name", remedy)
        own = _module_name(project)
        if top in sys.stdlib_module_names or _module_name(top) != own or not _is_installed_from(cwd, project):
            expected = f"{own}, the package of this project, installed from this directory with pip install -e ."
            raise refuse(_SETTING, name, expected, remedy)
    return names


def _module_name(project: str) -> str:
    """Convert the name of a project to the name of a module, such as ``My-Project`` to ``my_project``."""
    return re.sub(r"[-_.]+", "_", project).lower()


def _is_installed_from(cwd: Path, project: str) -> bool:
    """Return whether the installed package ``project`` was installed from the directory ``cwd``.

    An installer records the directory in the file ``direct_url.json`` of the installed package. A ``pyproject.toml``
    can contain the name ``torch``, but it cannot change this file of the installed torch.
    """
    from importlib.metadata import distributions  # imported here because it slowly imports the package `email`

    found = next(iter(distributions(name=project, path=_paths_outside(cwd))), None)
    try:
        url = urlsplit(json.loads((found and found.read_text("direct_url.json")) or "{}")["url"])
    except (ValueError, LookupError, TypeError, AttributeError):  # no record, or a damaged record
        return False
    return url.scheme == "file" and Path(unquote(url.path)).resolve() == cwd.resolve()
