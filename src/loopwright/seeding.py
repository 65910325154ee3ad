"""Functions that derive seeds, and functions and classes that seed, save and restore random streams.

A random stream is the state of a global random number generator. The host streams are the states of Python's
``random``, of NumPy's legacy generator (if NumPy is imported), and of torch's CPU generator. An accelerator may have
one more stream.
"""

from __future__ import annotations

import hashlib
import operator
import random
import secrets
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from loopwright.protocols import DeviceStream

_MASK = (1 << 64) - 1

# The global generators belong to the process, so only one thread at a time may replace them.
_GLOBAL_STREAMS = threading.RLock()


def draw_seed() -> int:
    """Draw a seed in [0, 2**32) from the operating system."""
    return secrets.randbits(32)


def derive(seed: int, *key: int | str) -> int:
    """Derive a 64-bit seed from ``seed`` and ``key`` with BLAKE2b.

    Equal arguments give equal seeds. Different arguments give unrelated seeds.
    """
    digest = hashlib.blake2b(repr((seed, *key)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def sample_seed(seed: int, pass_index: int, index: Any) -> int:
    """Derive a 64-bit seed for reading one sample in one pass, with splitmix64 (Steele et al. 2014).

    This function is faster than `derive`. Integers of different types, such as an ``int`` and a NumPy integer, give
    equal seeds if they are equal. For any other ``index``, such as a name, the seed is derived from ``repr(index)``.
    """
    try:
        key = operator.index(index)
    except TypeError:
        key = derive(0, repr(index))
    mixed = seed & _MASK
    for word in (pass_index, key):
        mixed = (mixed + 0x9E3779B97F4A7C15 * (word + 1)) & _MASK
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
        mixed ^= mixed >> 31
    return mixed


def seed_host_streams(seed: int) -> None:
    """Seed the host streams only. `torch.manual_seed` would also seed the generators of all devices."""
    random.seed(seed)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(seed & 0xFFFFFFFF)
    torch.default_generator.manual_seed(seed)


def capture(device: DeviceStream | None = None) -> dict[str, Any]:
    """Return the state of every generator. Each state has the format of the generator's library."""
    numpy = sys.modules.get("numpy")
    return {
        "python": random.getstate(),
        "numpy": None if numpy is None else numpy.random.get_state(),
        "torch": torch.default_generator.get_state(),
        "device": None if device is None else device.get_state(),
    }


def restore(states: dict[str, Any], device: DeviceStream | None = None) -> None:
    """Set every generator to the state that `capture` returned."""
    random.setstate(states["python"])
    numpy = sys.modules.get("numpy")
    if numpy is not None and states["numpy"] is not None:
        numpy.random.set_state(states["numpy"])
    torch.default_generator.set_state(states["torch"])
    if device is not None and states["device"] is not None:
        device.set_state(states["device"])


class SideStreams:
    """Host streams for reading data, separate from the streams of training.

    ``__enter__`` and ``__exit__`` run for every batch, so these methods must be fast. They replace the bit generator of
    NumPy's legacy functions, because copying the state of the bit generator takes 100 times as long.

    NumPy's legacy functions compute normal numbers in pairs and cache the second number of a pair. Replacing the bit
    generator discards a cached number. A worker process must therefore also discard it, with `forget_spare_normal`.
    Otherwise, results would depend on the process that reads a batch.

    Args:
        seed: seed of the initial state.
        is_continued: whether each ``with`` block continues from the states at the end of the previous block. If False,
            the code in each block must seed the streams.
    """

    def __init__(self, seed: int, *, is_continued: bool) -> None:
        numpy = sys.modules.get("numpy")
        self._is_continued = is_continued
        self._numpy = None if numpy is None else numpy.random.MT19937(seed)
        self._python: Any = random.Random(seed).getstate()
        self._torch = torch.Generator().manual_seed(seed).get_state()
        self._outer: tuple[Any, torch.Tensor, Any] | None = None

    def __enter__(self) -> None:
        """Save the states of the global generators, and replace NumPy's bit generator by the generator of this object.

        If ``is_continued``, also set Python's and torch's generators to their states at the end of the previous block.
        """
        self._outer = (random.getstate(), torch.default_generator.get_state(), _swap_numpy(self._numpy))
        if self._is_continued:
            random.setstate(self._python)
            torch.default_generator.set_state(self._torch)

    def __exit__(self, *_: object) -> None:
        """Restore the global streams that `__enter__` saved."""
        assert self._outer is not None, "exited without being entered"
        python, torch_state, numpy = self._outer
        if self._is_continued:
            self._python, self._torch = random.getstate(), torch.default_generator.get_state()
        random.setstate(python)
        torch.default_generator.set_state(torch_state)
        _swap_numpy(numpy)

    def state_dict(self) -> dict[str, Any]:
        """Return the states of these streams as tensors and nested tuples, lists and dicts."""
        numpy = None if self._numpy is None else self._numpy.state["state"]
        return {
            "python": self._python,
            "torch": self._torch,
            "numpy": None if numpy is None else {"key": [int(word) for word in numpy["key"]], "pos": int(numpy["pos"])},
        }

    def load_state_dict(self, states: dict[str, Any]) -> None:
        """Restore states that `state_dict` returned."""
        self._python, self._torch = states["python"], states["torch"]
        if self._numpy is not None and states["numpy"] is not None:
            key = sys.modules["numpy"].array(states["numpy"]["key"], dtype="uint32")
            self._numpy.state = {"bit_generator": "MT19937", "state": {"key": key, "pos": states["numpy"]["pos"]}}


def forget_spare_normal() -> None:
    """Discard the normal number that NumPy's legacy functions may have cached. `SideStreams` also discards it."""
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        _swap_numpy(numpy.random.get_bit_generator())


def _swap_numpy(bit_generator: Any) -> Any:
    """Replace the bit generator of NumPy's legacy functions, and return the previous bit generator."""
    if bit_generator is None:
        return None
    numpy = sys.modules["numpy"]
    before = numpy.random.get_bit_generator()
    numpy.random.set_bit_generator(bit_generator)
    return before


@contextmanager
def holding_streams() -> Iterator[None]:
    """Prevent other threads from replacing the global streams during the context. One thread may nest these contexts.

    Raises:
        RuntimeError: if another thread is inside this context manager.
    """
    if not _GLOBAL_STREAMS.acquire(blocking=False):
        raise RuntimeError(
            "Another thread of this process builds a trainer, fits, validates or predicts, and the random streams "
            "belong to the process: expected one at a time; wait until it has ended, or use another process."
        )
    try:
        yield
    finally:
        _GLOBAL_STREAMS.release()


class RandomStreams:
    """The random streams of one run, separate from the global streams of the process.

    Inside a ``with streams.active()`` block, the global generators use the states in this object. Each block continues
    from the states at the end of the previous block. At the end of a block, the global generators get back the states
    from before the block.

    Args:
        seed: seed of the initial state.
        device: generator of the accelerator; None: no such generator.
    """

    def __init__(self, seed: int, device: DeviceStream | None = None) -> None:
        self._seed = seed
        self._device = device
        self._is_active = False
        self._states_outside_branch: dict[str, Any] | None = None
        with self._restored_afterwards():
            self._seed_all(seed)
            self._states = capture(device)

    @property
    def seed(self) -> int:
        """Seed of these streams."""
        return self._seed

    @contextmanager
    def active(self) -> Iterator[None]:
        """Use these streams in the block. At the end of the block, also after an exception, restore the global streams.

        A nested block has no effect.

        Raises:
            RuntimeError: if another thread uses the global streams; see `holding_streams`.
        """
        if self._is_active:
            with holding_streams():
                yield
            return
        with self._restored_afterwards():
            restore(self._states, self._device)
            self._is_active = True
            try:
                yield
            finally:
                self._is_active = False
                self._states = capture(self._device)

    @contextmanager
    def branch(self, *key: int | str) -> Iterator[None]:
        """Seed the streams with ``derive(seed, *key)`` for the block. At its end, restore the previous states."""
        with self._restored_afterwards() as before:
            is_outermost = self._is_active and self._states_outside_branch is None
            if is_outermost:
                self._states_outside_branch = before
            try:
                self._seed_all(derive(self._seed, *key))
                yield
            finally:
                if is_outermost:
                    self._states_outside_branch = None

    def reseed(self, seed: int) -> None:
        """Seed the streams with another seed. The property `seed` is not changed."""
        with self._restored_afterwards():
            self._seed_all(seed)
            self._states = capture(self._device)
        if self._is_active:
            restore(self._states, self._device)

    def state_dict(self) -> dict[str, Any]:
        """Return the seed and the current states as tensors and nested tuples, lists and dicts.

        Inside a `branch`, the result contains the states from before the branch.
        """
        states = dict(self._states_outside_branch or (capture(self._device) if self._is_active else self._states))
        if states["numpy"] is not None:
            name, keys, *rest = states["numpy"]
            states["numpy"] = (str(name), [int(key) for key in keys], *rest)
        return {"seed": self._seed, **states}

    def load_state_dict(self, states: dict[str, Any]) -> None:
        """Restore a state that `state_dict` returned.

        Raises:
            ValueError: if the state of NumPy's generator is invalid. Without this check, NumPy could read memory
                outside its array.
        """
        if states["numpy"] is not None:
            name, keys, position, _, _ = states["numpy"]
            if name != "MT19937" or len(keys) != 624 or not 0 <= position <= 624:
                raise ValueError("numpy: expected the state of an MT19937 generator")
        self._seed = states["seed"]
        self._states = {name: state for name, state in states.items() if name != "seed"}
        if self._is_active:
            restore(self._states, self._device)

    @contextmanager
    def _restored_afterwards(self) -> Iterator[dict[str, Any]]:
        with holding_streams():
            before = capture(self._device)
            try:
                yield before
            finally:
                restore(before, self._device)

    def _seed_all(self, seed: int) -> None:
        seed_host_streams(seed)
        if self._device is not None:
            self._device.seed(seed)
