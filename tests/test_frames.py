"""The number of Loopwright's stack frames between the command and the first forward, and the number of their files."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import loopwright
from loopwright.cli import console
from loopwright.models import MLP

MAX_FRAMES, MAX_FILES = 16, 9


def test_few_frames_are_between_the_command_and_the_first_forward(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Path(loopwright.__file__).parent
    stacks: list[list[str]] = []
    forward = MLP.forward

    def watched(self: MLP, batch: object) -> object:
        if not stacks and next(self.parameters()).device.type != "meta":
            frame, files = sys._getframe(1), []
            while frame is not None:
                if Path(frame.f_code.co_filename).is_relative_to(source):
                    files.append(f"{Path(frame.f_code.co_filename).relative_to(source)}:{frame.f_code.co_qualname}")
                frame = frame.f_back
            stacks.append(files)
        return forward(self, batch)

    monkeypatch.setattr(MLP, "forward", watched)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["loopwright", "loop.max_steps=1", "hydra.run.dir=run", "loggers=none"])
    assert console() == 0
    (frames,) = stacks
    assert len(frames) <= MAX_FRAMES, "\n".join(frames)
    assert len({frame.partition(":")[0] for frame in frames}) <= MAX_FILES, "\n".join(frames)
    assert frames[-1] == "cli.py:console", "the stack begins with the command"
