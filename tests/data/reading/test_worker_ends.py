"""Worker processes end with the pass or the process that reads from them, within 10 s."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.context import ForkContext, ForkProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

import faulty
from command import environment, is_group_gone
from loopwright import TrainingLoop
from loopwright.data import as_source
from tiny import trainer


class Stuck(IterableDataset[Any]):
    """Yields two rows, then sleeps for an hour."""

    def __iter__(self) -> Iterator[Any]:
        yield from (torch.ones(1), torch.ones(1))
        time.sleep(3600)


class Computing(IterableDataset[Any]):
    """Yields a row, then computes for minutes, a second later."""

    def __iter__(self) -> Iterator[Any]:
        yield torch.ones(1)
        time.sleep(1)
        yield sum(range(10**11))


class StuckRows(Dataset[Any]):
    """Eight rows, of which all but the first two take an hour to read."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Any:
        if index > 1:
            time.sleep(3600)
        return torch.ones(1)


class Opened(IterableDataset[Any]):
    """A stream with a property named ``dataset``, a name that `loopwright.data` uses too."""

    @property
    def dataset(self) -> Any:
        """Raise an error."""
        raise RuntimeError("it is not open")

    def __iter__(self) -> Iterator[Any]:
        return iter([torch.ones(1)] * 4)


class Wrapper:
    """An iterable that reads from a `DataLoader`."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[Any]:
        return iter(self.loader)


class Collating(DataLoader[Any]):
    """Collates with a method of its own, so that its iterators refer to it."""

    def __init__(self, dataset: Any, **options: Any) -> None:
        super().__init__(dataset, collate_fn=self.collate, **options)

    def collate(self, samples: list[Any]) -> Any:
        """Make a batch of ``samples``."""
        return torch.tensor(samples)


class Fixed(DataLoader[Any]):
    """A subclass with a class attribute in place of a setting."""

    worker_init_fn = None

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "worker_init_fn":
            super().__setattr__(name, value)


class OwnContext(ForkContext):
    """Gives its processes a name."""

    @property
    def Process(self) -> Any:
        """Constructor of a process."""
        return partial(ForkProcess, name="mine")


def put_aside(queue: Any, samples: list[Any]) -> Any:
    """Make a batch; put a pair that cannot be pickled and a text into the user's queue."""
    queue.put((0, threading.Lock()))
    queue.put("then")
    return torch.tensor(samples)


def test_busy_workers_end_with_their_reader(num_workers_left: Callable[[], int]) -> None:
    batches = as_source(DataLoader(Stuck(), num_workers=2), 0).read(0, 0)
    next(batches)
    assert num_workers_left() == 2
    del batches
    assert num_workers_left() == 0


@pytest.mark.slow
def test_a_worker_in_a_long_call_into_c_ends_with_its_reader(num_workers_left: Callable[..., int]) -> None:
    """Such a call keeps Python's lock, so that no thread of the worker runs."""
    batches = as_source(DataLoader(Computing(), num_workers=1), 0).read(0, 0)
    next(batches)
    del batches
    assert num_workers_left(within_seconds=5) == 0


@pytest.mark.parametrize("kind", ["torch", "own", "stream"])
def test_workers_that_are_kept_do_not_add_up(kind: str, num_workers_left: Callable[[], int]) -> None:
    source = as_source(faulty.data(kind, num_workers=2, persistent_workers=True).train, 0)
    for number in range(3):
        assert len(list(source.read(number, 0))) >= 4
        assert num_workers_left() == (2 if kind == "torch" else 0)


@pytest.mark.parametrize("persistent_workers", [False, True])
def test_workers_of_a_loader_that_is_held_by_its_own_iterators_end_with_it(
    persistent_workers: bool, num_workers_left: Callable[..., int]
) -> None:
    loader = Collating(range(8), num_workers=1, persistent_workers=persistent_workers)
    next(as_source(loader, 0).read(0, 0))
    del loader
    assert num_workers_left(is_collected=True) == 0


@pytest.mark.parametrize("kind", ["torch", "own"])
def test_workers_end_with_an_object_that_trains_and_collates(kind: str, num_workers_left: Callable[..., int]) -> None:
    """The object refers to the trainer, and the collate function of the workers refers to the object."""

    class Study:
        def __init__(self) -> None:
            self.trainer = trainer(TrainingLoop(num_steps=2), model=faulty.Model)
            make: Any = {"torch": DataLoader, "own": faulty.OwnLoader}[kind]
            self.loader = make(faulty.Rows(16, "none"), num_workers=1, collate_fn=self.collate, persistent_workers=True)

        def collate(self, samples: list[Any]) -> Any:
            return torch.stack(samples)

    study = Study()
    study.trainer.fit(study.loader)
    del study
    assert num_workers_left(is_collected=True) == 0


@pytest.mark.parametrize("persistent_workers", [False, True])
def test_a_dataloader_that_another_iterable_reads_is_left_alone(
    persistent_workers: bool, num_workers_left: Callable[[], int]
) -> None:
    loader = DataLoader(range(8), num_workers=1, persistent_workers=persistent_workers)
    source = as_source(Wrapper(loader), 0)
    for number in range(2):
        assert len(list(source.read(number, 0))) == 8
        assert num_workers_left() == int(persistent_workers)
    loader._iterator = None


def test_an_attribute_of_a_users_data_set_is_not_read() -> None:
    assert len(list(as_source(DataLoader(Opened(), num_workers=1), 0).read(0, 0))) == 4


def test_a_users_queue_works_as_without_loopwright(capfd: pytest.CaptureFixture[str]) -> None:
    queue: Any = multiprocessing.Queue()
    loader = faulty.OwnLoader(range(1), num_workers=1, collate_fn=partial(put_aside, queue))
    assert len(list(as_source(loader, 0).read(0, 0))) == 1
    assert queue.get(timeout=200) == "then"
    assert "cannot pickle '_thread.lock' object" in capfd.readouterr().err


def test_a_class_attribute_may_replace_a_setting() -> None:
    assert len(list(as_source(Fixed(range(4), num_workers=1), 0).read(0, 0))) == 4


@pytest.mark.parametrize("make", [DataLoader, faulty.OwnLoader])
def test_a_users_context_starts_the_workers(make: Any) -> None:
    loader = make(range(4), num_workers=1, multiprocessing_context=OwnContext(), worker_init_fn=_check_name)
    assert len(list(as_source(loader, 0).read(0, 0))) == 4


def _check_name(worker: int) -> None:
    assert multiprocessing.current_process().name == "mine"


def _read_and_hold(loader: DataLoader[Any]) -> None:
    readers.append(as_source(loader, 0).read(0, 0))
    next(readers[-1])


readers: list[Iterator[Any]] = []


@pytest.mark.parametrize("kind", ["torch", "own", "stream"])
@pytest.mark.parametrize("persistent_workers", [False, True])
def test_a_users_process_that_reads_ends(kind: str, persistent_workers: bool) -> None:
    """`multiprocessing` ignores `atexit` functions in such a process, and waits for its children."""
    loader = faulty.data(kind, num_workers=1, persistent_workers=persistent_workers).train
    process = multiprocessing.get_context("fork").Process(target=_read_and_hold, args=(loader,))
    process.start()
    process.join(100)
    assert process.exitcode == 0


_HELD = """
import os, signal
from torch.utils.data import DataLoader
from loopwright.data import as_source

class Own(DataLoader):
    pass

class Sampler:
    def __len__(self):
        return 64

    def __iter__(self):
        yield 0
        {what}
        yield 1

try:
    next(as_source({kind}(range(64), sampler=Sampler(), num_workers=2), 0).read(0, 0))
except BaseException as error:
    print(repr(error))
    held = error
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["DataLoader", "Own"])
@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("raise ValueError('no more')", "ValueError('no more')"),
        ("os.kill(os.getpid(), signal.SIGINT)", "KeyboardInterrupt()"),
    ],
    ids=["error", "ctrl_c"],
)
def test_python_ends_after_an_error_between_the_start_of_workers_and_the_first_batch(
    kind: str, what: str, said: str
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _HELD.format(kind=kind, what=what)],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.communicate(timeout=200)[0].strip() == said
    assert process.returncode == 0
    assert is_group_gone(process.pid)


_INTERRUPTED = """
import atexit, os, subprocess
from torch.utils.data import DataLoader
from loopwright.data import as_source
from test_worker_ends import StuckRows

loaders = [DataLoader(StuckRows(), num_workers=1, persistent_workers=True) for _ in range(2)]
readers = [as_source(loader, 0).read(0, 0) for loader in loaders]
for reader in readers:
    next(reader)
atexit.register(lambda: subprocess.Popen(["sh", "-c", f"sleep 1; kill -INT {os.getpid()}"]))
"""


@pytest.mark.slow
def test_ctrl_c_while_torch_waits_for_busy_workers_leaves_none() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _INTERRUPTED], env=environment(), cwd=Path(__file__).parent, start_new_session=True
    )
    process.wait(timeout=200)
    assert is_group_gone(process.pid)


_KILLED = """
import os, signal, time
from torch.utils.data import DataLoader
from loopwright.data import as_source
from test_worker_ends import Stuck

forks = []  # The second worker is still starting when its parent ends.
os.register_at_fork(before=lambda: forks.append(1), after_in_child=lambda: time.sleep(3 * (len(forks) == 2)))
batches = as_source(DataLoader(Stuck(), num_workers=2), 0).read(0, 0)
next(batches)
child = os.fork()
if child == 0:
    os.setsid()
    time.sleep(3600)
print(child, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_workers_end_with_their_parent_even_if_another_child_of_it_lives() -> None:
    """The other child keeps the pipe open whose end of file reports the death of the parent."""
    process = subprocess.Popen(
        [sys.executable, "-c", _KILLED],
        env=environment(),
        cwd=Path(__file__).parent,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        assert process.wait(timeout=200) == -signal.SIGKILL
        assert is_group_gone(process.pid, within_seconds=10)
    finally:
        os.kill(child, signal.SIGKILL)
        process.stdout.close()


_FORK_SERVER = """
import multiprocessing, os, signal, time
from torch.utils.data import DataLoader
from loopwright.data import as_source

if __name__ == "__main__":
    multiprocessing.set_start_method("forkserver")
    context = multiprocessing.get_context("forkserver")
    for each in (context, multiprocessing.context._default_context):  # The default one is of another class.
        loader = DataLoader(range(4), num_workers=1, multiprocessing_context=each)
        assert len(list(as_source(loader, 0).read(0, 0))) == 4
    sleeping = context.Process(target=time.sleep, args=(3600,))
    sleeping.start()
    os.kill(sleeping.pid, signal.SIGUSR1)
    sleeping.join(100)
    assert sleeping.exitcode == -signal.SIGUSR1, sleeping.exitcode
"""


@pytest.mark.slow
def test_later_processes_of_a_fork_server_receive_signals(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(_FORK_SERVER)
    command = [sys.executable, str(tmp_path / "main.py")]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr


_ORPHANS = """
import os, signal, time
from torch.utils.data import DataLoader
from loopwright.data import as_source

def kill_parent(worker):
    parent = os.getppid()
    os.kill(parent, signal.SIGKILL)
    while os.getppid() == parent:
        time.sleep(0.001)

class Own(DataLoader):
    pass

next(as_source({}(range(8), num_workers=1, worker_init_fn=kill_parent), 0).read(0, 0))
"""


@pytest.mark.slow
@pytest.mark.parametrize("loader", ["DataLoader", "Own"])
def test_a_worker_whose_parent_dies_while_it_starts_ends_too(loader: str) -> None:
    """Torch's own check starts later, and takes the process that adopted the worker for its parent."""
    command = [sys.executable, "-c", _ORPHANS.format(loader)]
    process = subprocess.Popen(command, env=environment(), start_new_session=True)
    assert process.wait(timeout=200) == -signal.SIGKILL
    assert is_group_gone(process.pid, within_seconds=10)


SPAWNED = """
import sys
from torch.utils.data import DataLoader
from loopwright.data import as_source
if __name__ == "__main__":
    loader = DataLoader(range(4), batch_size=2, num_workers=1, multiprocessing_context=sys.argv[1])
    assert [batch.tolist() for batch in as_source(loader, 0).read(0, 0)] != []
    sys.exit(0)
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_started_worker_imports_nothing_from_the_current_directory(method: str, tmp_path: Path) -> None:
    (tmp_path / "cwd").mkdir()
    (tmp_path / "script.py").write_text(SPAWNED)
    marker = tmp_path / "it_ran"
    for name in ("multiprocessing", "socket", "selectors", "pickle", "torch"):
        (tmp_path / "cwd" / f"{name}.py").write_text(f"open({str(marker)!r}, 'w').close()\nraise SystemExit(9)\n")
    command = [sys.executable, str(tmp_path / "script.py"), method]
    env, cwd = environment(), tmp_path / "cwd"
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, marker.exists()) == (0, False), done.stderr
