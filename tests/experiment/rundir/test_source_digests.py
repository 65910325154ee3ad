"""The digest of the source code of a run."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from loopwright.experiment.gate.trust import NO_TRUST, Trust
from loopwright.experiment.rundir.source_digests import source_digests

UNREADABLE = Path("/proc/self/mem")  # reading its first bytes fails, even for root


def digest(name: str, cwd: Path) -> str | None:
    trust = Trust(packages=(name,), from_cwd=(name.partition(".")[0],), cwd=cwd)
    return source_digests(trust)[name]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Create a package that fails when it is imported."""
    package = tmp_path / "unseen_package"
    (package / "inner").mkdir(parents=True)
    for name in ("__init__.py", "one.py", "inner/__init__.py", "inner/two.py"):
        (package / name).write_text("raise AssertionError\n")
    return package


def test_a_changed_name_or_content_changes_the_digest_and_nothing_is_imported(package: Path, tmp_path: Path) -> None:
    seen = [digest(package.name, tmp_path)]
    assert digest(package.name, tmp_path) == seen[0]
    (package / "inner" / "two.py").write_text("x = 1\n")
    seen.append(digest(package.name, tmp_path))
    (package / "inner" / "two.py").rename(package / "inner" / "three.py")
    seen.append(digest(package.name, tmp_path))
    (package / "one.py").unlink()
    seen.append(digest(package.name, tmp_path))
    assert None not in seen and len(set(seen)) == 4
    (package / "notes.txt").write_text("x")
    (package / ".hidden").mkdir()
    (package / ".hidden" / "three.py").write_text("x = 1\n")
    (package / ".#one.py").symlink_to("nowhere")  # a lock file of an editor
    os.mkfifo(package / "pipe.py")
    assert digest(package.name, tmp_path) == seen[-1]
    assert package.name not in sys.modules


def test_a_module_of_a_package_has_its_own_digest(package: Path, tmp_path: Path) -> None:
    whole, one, inner = (digest(f"unseen_package{part}", tmp_path) for part in ("", ".one", ".inner"))
    assert len({whole, one, inner}) == 3
    assert digest("unseen_package.one.Model", tmp_path) == one
    assert digest("unseen_package.inner.absent", tmp_path) == inner
    (package / "one.py").write_text("x = 1\n")
    assert digest("unseen_package.inner", tmp_path) == inner
    assert digest("unseen_package.one", tmp_path) != one


def test_a_module_without_source_has_no_digest(tmp_path: Path) -> None:
    assert digest("absent_module", tmp_path) is None
    found = source_digests(Trust(packages=("math", "sys", "loopwright_absent.part", "numpy.linalg")))
    assert [found[name] for name in ("math", "sys", "loopwright_absent.part")] == [None] * 3
    assert found["numpy.linalg"] is not None
    assert list(source_digests(NO_TRUST)) == ["loopwright"] and source_digests(NO_TRUST)["loopwright"] is not None


@pytest.mark.skipif(not UNREADABLE.exists(), reason="needs a file that cannot be read")
def test_an_unreadable_file_gives_no_digest(package: Path, tmp_path: Path) -> None:
    (package / "three.py").symlink_to(UNREADABLE)
    assert digest(package.name, tmp_path) is None
