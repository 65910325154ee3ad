from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from loopwright.checkpoint import expand, resolve, step_folder
from loopwright.errors import CheckpointError

Saver = Callable[[int], Path]


def test_folder_names_contain_the_step_padded_with_zeros(tmp_path: Path) -> None:
    assert step_folder(tmp_path, 100) == tmp_path / "checkpoints" / "step_00000100"
    assert step_folder(tmp_path, 123456789).name == "step_123456789"


def test_resolve_accepts_a_checkpoint_a_run_or_its_checkpoints_folder(save: Saver, tmp_path: Path) -> None:
    save(9)
    newest = save(100)
    assert resolve(newest) == resolve(tmp_path) == resolve(newest.parent) == resolve(str(tmp_path)) == newest


def test_the_newest_checkpoint_has_the_largest_step(save: Saver, tmp_path: Path) -> None:
    save(99999999)
    assert resolve(tmp_path) != save(100000000).parent
    assert resolve(tmp_path).name == "step_100000000"


@pytest.mark.parametrize("name", ["manifest.json", "model.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_if_the_newest_is_damaged_the_one_before_it_is_returned_with_a_warning(
    save: Saver, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, damage: str
) -> None:
    good, newest = save(1), save(2)
    if damage == "missing":
        (newest / name).unlink()
    else:
        (newest / name).write_bytes(b"x" * (newest / name).stat().st_size)
    with caplog.at_level(logging.WARNING, logger="loopwright"):
        assert resolve(tmp_path) == good
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(f"{newest}: {name}: ")
    assert caplog.messages[0].endswith("; using step_00000001 instead.")


def test_if_all_are_damaged_the_error_lists_them(save: Saver, tmp_path: Path) -> None:
    for step in (1, 2):
        (save(step) / "state.json").unlink()
    with pytest.raises(
        CheckpointError, match=r"no checkpoint passes verification: .*2: state\.json: missing; .*00000001"
    ):
        resolve(tmp_path)


def test_temporary_folders_links_and_other_names_are_ignored(save: Saver, tmp_path: Path) -> None:
    good = save(1)
    save(7).rename(good.parent / ".tmp-0-step_00000007")
    (good.parent / "step_00000009").symlink_to(good)
    save(8).rename(good.parent / "notes")
    assert resolve(tmp_path) == good
    assert expand(str(good.parent / "step_*")) == [good]
    with pytest.raises(CheckpointError, match="no checkpoint"):
        resolve(good.parent / ".tmp-0-step_00000007")


def test_a_missing_checkpoint_is_one_line_with_the_nearest_name(save: Saver, tmp_path: Path) -> None:
    path = save(1)
    with pytest.raises(CheckpointError, match=r"no such folder; expected .*Did you mean step_00000001\?$"):
        resolve(path.parent / "step_0000001")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="contains no checkpoint"):
        resolve(tmp_path / "empty")
    with pytest.raises(CheckpointError, match=r"manifest.json: a file; expected .* Did you mean .*step_00000001\?$"):
        resolve(path / "manifest.json")
    with pytest.raises(CheckpointError, match="no such folder"):
        resolve(tmp_path / "no" / "where")


def test_a_checkpoints_folder_that_is_a_link_is_refused(save: Saver, tmp_path: Path) -> None:
    root = save(1).parent
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").symlink_to(root)
    with pytest.raises(CheckpointError, match="a link; links are not followed"):
        resolve(tmp_path / "run")


def test_patterns_give_checkpoints_in_natural_order(tmp_path: Path, save: Saver) -> None:
    for step in (100, 9, 10):
        path = save(step)
        path.rename(path.parent / f"step_{step}")
    expected = [tmp_path / "checkpoints" / f"step_{step}" for step in (9, 10, 100)]
    assert expand(str(tmp_path / "checkpoints" / "*")) == expected
    assert expand(tmp_path / "**") == expected
    assert expand([expected[2], str(expected[0]), str(tmp_path / "*" / "step_1*")]) == expected
    assert expand(tmp_path) == [expected[2]]


def test_a_pattern_returns_only_checkpoints(save: Saver, tmp_path: Path) -> None:
    path = save(1)
    (path.parent / "step_00000002").mkdir()
    (path.parent / "step_00000003").touch()
    assert expand(str(path.parent / "step_*")) == [path]


def test_a_pattern_or_path_without_a_checkpoint_is_an_error(save: Saver, tmp_path: Path) -> None:
    path = save(1)
    with pytest.raises(CheckpointError, match="matches nothing"):
        expand(str(path.parent / "stap_*"))
    with pytest.raises(CheckpointError, match=r"matches 1 path\(s\), but no checkpoint"):
        expand(str(tmp_path / "check*"))
    with pytest.raises(CheckpointError, match="no such folder"):
        expand([path, tmp_path / "absent"])
    with pytest.raises(CheckpointError, match="expected at least one checkpoint"):
        expand([])


def test_an_existing_path_is_not_treated_as_a_pattern(save: Saver, tmp_path: Path) -> None:
    path = save(1)
    os.rename(path.parent, tmp_path / "run[1]")
    assert expand(str(tmp_path / "run[1]")) == [tmp_path / "run[1]" / path.name]
