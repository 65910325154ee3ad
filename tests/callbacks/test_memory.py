"""Tests of `Memory`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import tiny
from loopwright import TrainingLoop
from loopwright.callbacks import Memory

BIG = 64 * 2**20  # bytes


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux can reset the peak of a process")
def test_the_peak_is_since_the_last_log_step() -> None:
    def allocate(trainer: Any, *_: Any) -> None:
        if trainer.global_step == 2:
            assert len(bytearray(BIG).replace(b"\0", b"\1")) == BIG

    logged = tiny.Logged()
    ours = tiny.trainer(
        TrainingLoop(num_steps=4), callbacks=[tiny.Recorder(allocate), Memory()], loggers=[logged], log_every_n_steps=1
    )
    ours.fit(tiny.batches())
    first, second, third, fourth = logged.timing["memory/peak_process_bytes"].values()
    assert second > first + BIG
    assert max(third, fourth) < second - BIG
    whole = [*logged.timing["peak_memory_bytes"].values()]  # the peak of the process remains known
    assert whole == sorted(whole) and whole[-1] >= second


def test_a_machine_that_cannot_measure_it_gets_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(self: Path, *args: Any, **kwargs: Any) -> str:
        raise FileNotFoundError(self)

    monkeypatch.setattr(Path, "read_text", refuse)
    logged = tiny.Logged()
    ours = tiny.trainer(TrainingLoop(num_steps=2), callbacks=[Memory()], loggers=[logged])
    ours.fit(tiny.batches())
    assert "Memory: the peak memory between two log steps cannot be measured on this machine (cpu)" in caplog.text
    assert not [name for name in logged.timing if name.startswith("memory/")]
