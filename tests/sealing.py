"""Checkpoints changed by hand, with a manifest that fits: it finds damage, and proves no author."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from loopwright.checkpoint.outline import outline


def seal(path: Path) -> None:
    """Make the manifest fit the files, as anyone can who changes them."""
    manifest = json.loads((path / "manifest.json").read_text())
    for name in manifest["files"]:
        data = (path / name).read_bytes()
        manifest["files"][name] = {"num_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    write_manifest(path, manifest)


def write_manifest(path: Path, manifest: dict[str, Any]) -> None:
    """Write a manifest with the digest of itself."""
    manifest = {name: value for name, value in manifest.items() if name != "sha256"}
    manifest["sha256"] = hashlib.sha256(spell(manifest)).hexdigest()
    (path / "manifest.json").write_bytes(spell(manifest))


def spell(values: object) -> bytes:
    """How a manifest is written."""
    return json.dumps(values, indent=2, sort_keys=True).encode() + b"\n"


def read_trees(path: Path) -> dict[str, Any]:
    """What ``state.json`` holds, the outline apart."""
    trees: dict[str, Any] = json.loads((path / "state.json").read_text())
    del trees["outline"]
    return trees


def write_trees(path: Path, trees: dict[str, Any]) -> None:
    """Write ``state.json`` with an outline that fits, and seal."""
    (path / "state.json").write_text(json.dumps({**trees, "outline": outline(trees)}))
    seal(path)


def leaves(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each scalar of a JSON tree; of long lists of numbers to the first, a middle and the last."""
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
    """A copy of a JSON tree without what is at ``path``."""
    copy = json.loads(json.dumps(tree))
    node = copy
    for key in path[:-1]:
        node = node[key]
    del node[path[-1]]
    return copy
