"""Fits in several threads: the random streams belong to the process, so only one thread uses them at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from loopwright import Checkpointing, TrainingLoop
from loopwright.data import Loader
from tiny import Recorder, Regression, is_bitwise_equal, rows, trainer, weights

DEADLINE_SECONDS = 60


def build(**settings: Any) -> Any:
    return trainer(TrainingLoop(max_steps=6), model=lambda: Regression(dropout=0.5), **settings)


def data() -> Loader:
    return Loader(rows(24), batch_size=4, shuffle=True)


@contextmanager
def fit_in_a_thread(**settings: Any) -> Iterator[Any]:
    """Hold a fit in its third step, in another thread, while the block runs; then wait for its end."""
    is_inside, may_continue = threading.Event(), threading.Event()

    def pause(ours: Any, batch: Any, batch_idx: int) -> None:
        if ours.global_step == 3:
            is_inside.set()
            assert may_continue.wait(DEADLINE_SECONDS)

    ours = build(callbacks=[Recorder(pause)], **settings)
    with ThreadPoolExecutor(1) as pool:
        fit = pool.submit(ours.fit, data(), DataLoader(rows(4)))
        try:
            assert is_inside.wait(DEADLINE_SECONDS)
            yield ours
        finally:
            may_continue.set()
        assert fit.result(DEADLINE_SECONDS).global_step == 6


USES: dict[str, Callable[[Any, Any], Any]] = {
    "fit": lambda other, ours: other.fit(data()),
    "validate": lambda other, ours: other.validate(DataLoader(rows(4))),
    "validate_all": lambda other, ours: other.validate_all(DataLoader(rows(4))),
    "new trainer": lambda other, ours: build(),
    "fit of the same": lambda other, ours: ours.fit(data()),
    "validate of the same": lambda other, ours: ours.validate(DataLoader(rows(4))),
}


@pytest.mark.parametrize("use", USES)
def test_a_second_use_in_another_thread_is_refused_and_the_fit_is_not_changed(use: str) -> None:
    straight = build()
    straight.fit(data(), DataLoader(rows(4)))
    other = build()
    before = torch.random.get_rng_state()
    with fit_in_a_thread() as ours, pytest.raises(RuntimeError) as caught:
        USES[use](other, ours)
    assert str(caught.value) == (
        "Another thread of this process builds a trainer, fits, validates or predicts, and the random streams belong "
        "to the process: expected one at a time; wait until it has ended, or use another process."
    )
    assert is_bitwise_equal(weights(ours), weights(straight))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert other.fit(data()).global_step == 6


def test_a_refused_fit_does_not_remove_the_unfinished_checkpoint_of_the_other(tmp_path: Path) -> None:
    """A fit removes unfinished checkpoints in its run directory at its start, before it uses random streams."""
    saves: dict[str, Any] = {"checkpoint": Checkpointing(), "run_dir": tmp_path}
    other = build(**saves)
    unfinished = tmp_path / "checkpoints" / ".tmp-0123456789abcdef-step_00000003"
    with fit_in_a_thread(**saves):
        unfinished.mkdir(parents=True)
        with pytest.raises(RuntimeError, match="Another thread"):
            other.fit(data())
        assert unfinished.is_dir()


def test_fits_one_after_the_other_in_two_threads_and_one_inside_another_are_allowed() -> None:
    straight = build()
    straight.fit(data())
    inner = build()

    def nest(ours: Any, batch: Any, batch_idx: int) -> None:
        if ours.global_step == 2:
            inner.fit(data())

    outer = build(callbacks=[Recorder(nest)])
    with ThreadPoolExecutor(1) as pool:
        pool.submit(outer.fit, data()).result(DEADLINE_SECONDS)
        pool.submit(inner.validate, DataLoader(rows(4))).result(DEADLINE_SECONDS)
    for each in (outer, inner):
        assert is_bitwise_equal(weights(each), weights(straight))
    assert outer.fit(data()).global_step == 6
