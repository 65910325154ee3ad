"""Helpers to change a checkpoint and to update its manifest, so that the change is not found as damage."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from loopwright.checkpoint.outline import outline


def seal(path: Path) -> None:
    """Update the manifest after a change of the files, as an attacker can."""
    manifest = json.loads((path / "manifest.json").read_text())
    for name in manifest["files"]:
        data = (path / name).read_bytes()
        manifest["files"][name] = {"num_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    write_manifest(path, manifest)


def write_manifest(path: Path, manifest: dict[str, Any]) -> None:
    """Write a manifest that contains its own digest."""
    manifest = {name: value for name, value in manifest.items() if name != "sha256"}
    manifest["sha256"] = hashlib.sha256(spell(manifest)).hexdigest()
    (path / "manifest.json").write_bytes(spell(manifest))


def spell(values: object) -> bytes:
    """Return the bytes of a manifest file."""
    return json.dumps(values, indent=2, sort_keys=True).encode() + b"\n"


def read_trees(path: Path) -> dict[str, Any]:
    """Return the content of ``state.json`` without the outline."""
    trees: dict[str, Any] = json.loads((path / "state.json").read_text())
    del trees["outline"]
    return trees


def write_trees(path: Path, trees: dict[str, Any]) -> None:
    """Write ``state.json`` with a matching outline, and update the manifest."""
    (path / "state.json").write_text(json.dumps({**trees, "outline": outline(trees)}))
    seal(path)


def leaves(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path to each scalar of a JSON tree; in long lists only the first, a middle and the last entry."""
    if isinstance(tree, dict):
        for name, value in tree.items():
            yield from leaves(value, (*path, name))
    elif isinstance(tree, list):
        is_long = len(tree) > 20
        for index in (0, len(tree) // 2, len(tree) - 1) if is_long else range(len(tree)):
            yield from leaves(tree[index], (*path, index))
    else:
        yield path


def without(tree: Any, path: tuple[Any, ...]) -> Any:
    """Return a copy of a JSON tree without the entry at ``path``."""
    copy = json.loads(json.dumps(tree))
    node = copy
    for key in path[:-1]:
        node = node[key]
    del node[path[-1]]
    return copy
