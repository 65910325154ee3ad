"""`source_digests`: computes a digest of the source code of Loopwright and of each trusted package."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path

from loopwright.experiment.gate.trust import Trust

_OWN = Path(__file__).parents[2]


def source_digests(trust: Trust) -> dict[str, str | None]:
    """Return the SHA-256 of the names and contents of the ``.py`` files of each package, by dotted package name.

    The value is None if a package has no ``.py`` files, or if a file cannot be read. No package is imported.
    """
    found = {"loopwright": _digest([_OWN])}
    for name in trust.packages:
        found[name] = _digest(_places(name, trust))
    return found


def _places(name: str, trust: Trust) -> list[Path]:
    """Return the paths of the source code of a package or module, or an empty list if it is not found.

    Args:
        name: dotted name of a package, a module, a class or a function. For a class or a function, the path of its
            module is returned.
        trust: packages that the user trusts.
    """
    top, *rest = name.split(".")
    try:
        spec = PathFinder.find_spec(top, [str(trust.cwd)]) if top in trust.from_cwd else find_spec(top)
    except (ImportError, ValueError):  # ValueError: a module without a spec
        return []
    places = _origins(spec)
    for part in rest:
        within = [place / part for place in places]
        inner = [each for place in within for each in (place, place.with_suffix(".py")) if each.exists()]
        places = inner or places
    return places


def _origins(spec: ModuleSpec | None) -> list[Path]:
    if spec is None:
        return []
    if spec.submodule_search_locations is not None:
        return [Path(place) for place in spec.submodule_search_locations]
    return [Path(spec.origin)] if spec.origin is not None else []


def _digest(places: Iterable[Path]) -> str | None:
    digest = hashlib.sha256()
    num_files = 0
    try:
        for place in places:
            for name, file in _files(place):
                content = file.read_bytes()
                digest.update(f"{name}\0{len(content)}\0".encode(errors="surrogateescape") + content)
                num_files += 1
    except OSError:
        return None
    return digest.hexdigest() if num_files else None


def _files(place: Path) -> Iterator[tuple[str, Path]]:
    """Yield the relative name and the path of each ``.py`` file of a module or package, in a fixed order.

    Folders whose names are not identifiers are skipped.
    """
    if not place.is_dir():
        if place.suffix == ".py":
            yield place.name, place
        return
    for here, folders, names in os.walk(place):
        folders[:] = sorted(name for name in folders if name.isidentifier())
        for name in sorted(names):
            file = Path(here, name)
            if name.endswith(".py") and file.is_file():
                yield file.relative_to(place).as_posix(), file
