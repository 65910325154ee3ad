"""`Sender` and `RemoteLogger`: batches, failures, the end of a run, and values that wait in a checkpoint."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import tiny
from loopwright import Checkpointing, TrainingLoop
from loopwright.errors import SaveError, SettingError
from loopwright.loggers.backlog import Backlog, Point
from loopwright.loggers.remote_logger import RemoteLogger
from loopwright.loggers.sender import MAX_BATCH, Ending, Sender
from loopwright.loggers.sent_record import SentRecord, read_sent


class Store:
    """A receiver in memory. While ``is_down`` is True, it raises errors."""

    def __init__(self) -> None:
        self.is_down = False
        self.points: list[Point] = []
        self.batches: list[int] = []
        self.endings: list[Ending] = []
        self.num_connections = 0
        self.has_failed = threading.Event()
        self.is_free = threading.Event()
        self.is_free.set()

    def connect(self) -> Mapping[str, int]:
        self._check()
        self.num_connections += 1
        return {point.name: point.step for point in self.points}

    def send(self, points: Sequence[Point]) -> None:
        self.is_free.wait()
        self._check()
        self.points += points
        self.batches.append(len(points))

    def close(self, ending: Ending) -> None:
        self._check()
        self.endings.append(ending)

    def _check(self) -> None:
        if self.is_down:
            self.has_failed.set()
            raise ConnectionError("the network\nis down")


class StoreLogger(RemoteLogger):
    """Sends values to a `Store`."""

    file_name = "store.json"
    title = "Store"

    def __init__(self, store: Store, on_error: str = "continue") -> None:
        super().__init__(on_error)
        self.store = store
        self.before: SentRecord | None = None

    def check_packages(self) -> None:
        pass

    def destination(self, run_dir: Path, before: SentRecord | None, note: Callable[[SentRecord], None]) -> Store:
        self.before = before
        note(SentRecord(run_id="7"))
        return self.store


def point(step: int, name: str = "a") -> Point:
    return Point(step, name, step / 3, 0.0)


def sender_of(store: Store, **settings: Any) -> tuple[Sender, list[Mapping[str, int]]]:
    sent: list[Mapping[str, int]] = []
    sender = Sender(store, Backlog(), name="Store", note_sent=sent.append, **settings)
    sender.start()
    return sender, sent


def fit(run_dir: Path, logger: StoreLogger, num_steps: int, **settings: Any) -> None:
    loop, ckpt_path = TrainingLoop(max_steps=num_steps), settings.pop("ckpt_path", None)
    every = {"log_every_n_steps": 1, "checkpoint": Checkpointing(every_n_steps=2)}
    with tiny.trainer(loop, loggers=[logger], run_dir=run_dir, **every, **settings) as trainer:
        trainer.fit(tiny.batches(), ckpt_path=ckpt_path)


def test_values_are_sent_in_order_in_batches_and_then_the_end() -> None:
    store = Store()
    store.is_free.clear()
    sender, sent = sender_of(store)
    points = [point(step) for step in range(MAX_BATCH + 10)]
    sender.add(points)
    store.is_free.set()
    sender.close(Ending(exit_code=3))
    assert (store.points, max(store.batches), store.endings) == (points, MAX_BATCH, [Ending(exit_code=3)])
    assert sent[-1] == {"a": MAX_BATCH + 9}


def test_a_failure_is_logged_once_and_the_values_are_sent_at_the_next_call(caplog: pytest.LogCaptureFixture) -> None:
    store = Store()
    store.is_down = True
    with caplog.at_level(logging.WARNING, "loopwright"):
        sender, _ = sender_of(store)
        for step in range(3):
            sender.add([point(step)])
            assert store.has_failed.wait(20)
            store.has_failed.clear()
        store.is_down = False
        sender.add([point(3)])
        sender.close(Ending())
    assert [p.step for p in store.points] == [0, 1, 2, 3]
    assert [record.getMessage() for record in caplog.records] == [
        "Store: cannot send now (ConnectionError: the network is down); values are kept, and sent again at the next "
        "log step."
    ]


def test_values_that_cannot_be_sent_at_the_end_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    store = Store()
    store.is_down = True
    with caplog.at_level(logging.WARNING, "loopwright"):
        sender, _ = sender_of(store)
        assert store.has_failed.wait(20)
        sender.add([point(1), point(2)])
        sender.close(Ending())
    assert "Store: 2 values, and the end of the run, could not be sent (Conn" in caplog.records[-1].getMessage()


def test_a_receiver_that_does_not_answer_is_left_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    store = Store()
    store.is_free.clear()
    with caplog.at_level(logging.WARNING, "loopwright"):
        sender, _ = sender_of(store)
        sender.add([point(1)])
        sender.close(Ending(), seconds=0.01)
    store.is_free.set()
    assert "Store: 1 values were not sent within 0.01 s" in caplog.text


def test_on_request_a_failure_ends_the_run(tmp_path: Path) -> None:
    store = Store()
    store.is_down = True
    with pytest.raises(SaveError, match="Store: cannot send: ConnectionError: the network is down"):
        fit(tmp_path, StoreLogger(store, on_error="stop"), 4)


def test_a_run_goes_on_without_its_receiver_and_a_resume_sends_everything(tmp_path: Path) -> None:
    store = Store()
    store.is_down = True
    fit(tmp_path, StoreLogger(store), 4)
    assert not store.points
    store.is_down = False
    logger = StoreLogger(store)
    fit(tmp_path, logger, 6, ckpt_path=tmp_path / "checkpoints" / "step_00000004")
    assert logger.before is not None and logger.before.run_id == "7"
    assert [p.step for p in store.points if p.name == "train/loss"] == [1, 2, 3, 4, 5, 6]
    assert all(math.isfinite(p.value) for p in store.points)
    fit(tmp_path, StoreLogger(store), 8, ckpt_path=tmp_path / "checkpoints" / "step_00000002")
    losses = [p.step for p in store.points if p.name == "train/loss"]
    assert losses == [1, 2, 3, 4, 5, 6, 7, 8], "steps 3 to 6 are not sent again"
    assert "timing/train/steps_per_second" in {p.name for p in store.points}
    found = read_sent(tmp_path / "store.json")
    assert found is not None and found.last_steps["train/loss"] == 8


def test_the_end_of_a_run_is_sent(tmp_path: Path) -> None:
    def act(trainer: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == 2:
            if kind == "stopped":
                trainer.stop("enough")
            elif kind == "interrupted":
                trainer.stop("SIGTERM", is_interruption=True)
            elif kind != "completed":
                raise errors[kind]

    errors = {"failed": RuntimeError("x"), "wrong": SettingError("a", "=1: x"), "ctrl_c": KeyboardInterrupt()}
    expected = {"completed": 0, "stopped": 0, "interrupted": 143, "failed": 1, "wrong": 2, "ctrl_c": 130}
    for kind, code in expected.items():
        store = Store()
        try:
            fit(tmp_path / kind, StoreLogger(store), 4, callbacks=[tiny.Recorder(act)])
        except (RuntimeError, SettingError, KeyboardInterrupt):
            assert kind not in ("completed", "stopped")
        (ending,) = store.endings
        state = {"wrong": "failed", "ctrl_c": "interrupted"}.get(kind, kind)
        assert (ending.state, ending.exit_code) == (state, code)
        assert "train/loss" in ending.metrics


def test_a_trainer_that_logs_nothing_connects_to_nothing(tmp_path: Path) -> None:
    store = Store()
    with tiny.trainer(loggers=[StoreLogger(store)], run_dir=tmp_path):
        pass
    assert (store.num_connections, [*tmp_path.iterdir()]) == (0, [])


@pytest.mark.parametrize("text", ["", "[1]", '{"run_id": 3, "sent": {"a": "x", "b": -1, "c": true}}', "{"])
def test_a_damaged_record_is_not_used(tmp_path: Path, text: str) -> None:
    (tmp_path / "store.json").write_text(text)
    assert read_sent(tmp_path / "store.json") in (None, SentRecord())
