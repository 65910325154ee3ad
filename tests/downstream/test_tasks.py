"""Files of tasks are opened only if they are regular files of an accepted size."""

from __future__ import annotations

from pathlib import Path

import pytest

import special
from loopwright.downstream import tasks
from loopwright.errors import SettingError

pytestmark = pytest.mark.timeout(20)


@pytest.mark.parametrize("kind", [*special.KINDS, "holes"])
def test_a_task_file_that_never_ends_is_refused(kind: str, tmp_path: Path) -> None:
    special.make(tmp_path / "letters.yaml", kind)
    with pytest.raises(SettingError, match=r"letters\.yaml: (not a regular file|.*expected at most 1,000,000)"):
        tasks.read_tasks(tmp_path)


@pytest.mark.parametrize("kind", [*special.KINDS, "holes"])
def test_data_of_a_task_that_never_end_are_refused(kind: str, tmp_path: Path) -> None:
    special.make(tmp_path / "letters.jsonl", kind)
    with pytest.raises(SettingError, match=r"letters\.jsonl: (not a regular file|.*expected at most)"):
        tasks._read_rows(tmp_path / "letters.jsonl", ": task letters")


@pytest.mark.parametrize("value", ["2024-99-99", "1" * 5_000, "!!int x", "[" * 2_000, "{[1]: 2}"])
def test_a_value_at_which_the_yaml_loader_fails_is_refused(value: str, tmp_path: Path) -> None:
    (tmp_path / "letters.yaml").write_text(f"task: {value}\n")
    with pytest.raises(SettingError, match=r"task_dir: .*letters\.yaml: "):
        tasks.read_tasks(tmp_path)
