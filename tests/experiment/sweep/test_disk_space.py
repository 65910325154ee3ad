"""The warning that the checkpoints of a sweep do not fit on the disk."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from command import Answer

WORDS = ("data=synthetic", "data.num_train=24", "data.num_val=8", "model.hidden=[4]", "loop.max_steps=1", "seed=0,1")


@pytest.mark.parametrize(("free", "is_warned"), [(29_000, True), pytest.param(30_000, False, marks=pytest.mark.slow)])
def test_too_little_space_for_all_checkpoints_is_said_once(
    cli: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch, free: int, is_warned: bool
) -> None:
    """64 x 4 + 4 + 4 x 10 + 10 parameters of 12 bytes, in 3 + 1 checkpoints of each of 2 jobs: 29,760 bytes."""
    usage = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free, total=usage(path).total))
    answer = cli("-m", *WORDS)
    assert answer.code == 0
    assert answer.err.count("\n") == is_warned
    assert ("the checkpoints of 2 jobs need about 2.77e-05 GiB" in answer.err) == is_warned
