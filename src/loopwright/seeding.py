"""Random streams that belong to someone: captured, seeded, swapped in and back.

A stream set is Python's ``random``, NumPy's legacy generator (where NumPy is imported), torch's CPU generator
and, where there is one, the accelerator's.
"""

from __future__ import annotations

import hashlib
import operator
import random
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from loopwright.protocols import DeviceStream

_MASK = (1 << 64) - 1


def draw_seed() -> int:
    """A seed from the operating system, in [0, 2**32)."""
    return secrets.randbits(32)


def derive(seed: int, *key: int | str) -> int:
    """A 64-bit seed for one purpose of a run, by BLAKE2b: equal keys give equal seeds, others unrelated ones."""
    digest = hashlib.blake2b(repr((seed, *key)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def sample_seed(seed: int, pass_index: int, index: Any) -> int:
    """A 64-bit seed for reading one sample in one pass; by splitmix64 (Steele et al. 2014), as `derive` is slower.

    Whole numbers of any type are the same index; other keys of a data set, such as names, go by their ``repr``.
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
    """Seed Python's, NumPy's and torch's CPU stream, and no other (`torch.manual_seed` reaches for every device)."""
    random.seed(seed)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(seed & 0xFFFFFFFF)
    torch.default_generator.manual_seed(seed)


def capture(device: DeviceStream | None = None) -> dict[str, Any]:
    """The state of every stream, as its owner gives it."""
    numpy = sys.modules.get("numpy")
    return {
        "python": random.getstate(),
        "numpy": None if numpy is None else numpy.random.get_state(),
        "torch": torch.default_generator.get_state(),
        "device": None if device is None else device.get_state(),
    }


def restore(states: dict[str, Any], device: DeviceStream | None = None) -> None:
    """Set every stream to what `capture` returned."""
    random.setstate(states["python"])
    numpy = sys.modules.get("numpy")
    if numpy is not None and states["numpy"] is not None:
        numpy.random.set_state(states["numpy"])
    torch.default_generator.set_state(states["torch"])
    if device is not None and states["device"] is not None:
        device.set_state(states["device"])


class SideStreams:
    """Streams for reading data beside the training: entered and left for every batch, and so made to be quick.

    Copying the state of NumPy's legacy generator takes 100 times as long as putting another bit generator in its
    place, so the latter is done. What it costs is a second normal number that the generator may have kept;
    `forget_spare_normal` does the same to the training's where a batch is read elsewhere, so that it does not matter
    where.

    Args:
        seed: what they start from.
        is_continued: whether a body goes on from where the last one ended; one that seeds anew need not.
    """

    def __init__(self, seed: int, *, is_continued: bool) -> None:
        numpy = sys.modules.get("numpy")
        self._is_continued = is_continued
        self._numpy = None if numpy is None else numpy.random.MT19937(seed)
        self._python: Any = random.Random(seed).getstate()
        self._torch = torch.Generator().manual_seed(seed).get_state()
        self._kept: tuple[Any, torch.Tensor, Any] | None = None

    def __enter__(self) -> None:
        """Put these streams in the place of those that are active."""
        self._kept = (random.getstate(), torch.default_generator.get_state(), _swap_numpy(self._numpy))
        if self._is_continued:
            random.setstate(self._python)
            torch.default_generator.set_state(self._torch)

    def __exit__(self, *_: object) -> None:
        """Give back those that were active."""
        assert self._kept is not None, "left without being entered"
        python, torch_state, numpy = self._kept
        if self._is_continued:
            self._python, self._torch = random.getstate(), torch.default_generator.get_state()
        random.setstate(python)
        torch.default_generator.set_state(torch_state)
        _swap_numpy(numpy)

    def state_dict(self) -> dict[str, Any]:
        """Where streams that are continued stand, as lists and tensors."""
        numpy = None if self._numpy is None else self._numpy.state["state"]
        return {
            "python": self._python,
            "torch": self._torch,
            "numpy": None if numpy is None else {"key": [int(word) for word in numpy["key"]], "pos": int(numpy["pos"])},
        }

    def load_state_dict(self, states: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        self._python, self._torch = states["python"], states["torch"]
        if self._numpy is not None and states["numpy"] is not None:
            key = sys.modules["numpy"].array(states["numpy"]["key"], dtype="uint32")
            self._numpy.state = {"bit_generator": "MT19937", "state": {"key": key, "pos": states["numpy"]["pos"]}}


def forget_spare_normal() -> None:
    """Let NumPy's legacy generator forget the second normal number that it may have kept, as `SideStreams` does."""
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        _swap_numpy(numpy.random.get_bit_generator())


def _swap_numpy(bit_generator: Any) -> Any:
    """Put a bit generator under NumPy's legacy functions, and return the one that was there."""
    if bit_generator is None:
        return None
    numpy = sys.modules["numpy"]
    before = numpy.random.get_bit_generator()
    numpy.random.set_bit_generator(bit_generator)
    return before


class RandomStreams:
    """Streams of their own: swapped in while `active`, continued the next time, never seen by the caller.

    Args:
        seed: what they start from.
        device: the accelerator's stream, where there is an accelerator.
    """

    def __init__(self, seed: int, device: DeviceStream | None = None) -> None:
        self._seed = seed
        self._device = device
        self._is_active = False
        self._trunk: dict[str, Any] | None = None
        with self._caller_kept():
            self._seed_all(seed)
            self._states = capture(device)

    @property
    def seed(self) -> int:
        """What these streams were seeded with."""
        return self._seed

    @contextmanager
    def active(self) -> Iterator[None]:
        """Run the body under these streams and give the caller's back, on exceptions too; nested use does nothing."""
        if self._is_active:
            yield
            return
        with self._caller_kept():
            restore(self._states, self._device)
            self._is_active = True
            try:
                yield
            finally:
                self._is_active = False
                self._states = capture(self._device)

    @contextmanager
    def branch(self, *key: int | str) -> Iterator[None]:
        """Run the body under streams seeded by (seed, *key), and give back what was there before."""
        with self._caller_kept() as kept:
            is_first = self._is_active and self._trunk is None
            if is_first:
                self._trunk = kept
            try:
                self._seed_all(derive(self._seed, *key))
                yield
            finally:
                if is_first:
                    self._trunk = None

    def state_dict(self) -> dict[str, Any]:
        """The seed and the present state, as lists and tensors; inside a branch, that which it will give back."""
        states = dict(self._trunk or (capture(self._device) if self._is_active else self._states))
        if states["numpy"] is not None:
            name, keys, *rest = states["numpy"]
            states["numpy"] = (str(name), [int(key) for key in keys], *rest)
        return {"seed": self._seed, **states}

    def load_state_dict(self, states: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned.

        Raises:
            ValueError: for a state of NumPy's that is none; set unchecked, it would read foreign memory.
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
    def _caller_kept(self) -> Iterator[dict[str, Any]]:
        kept = capture(self._device)
        try:
            yield kept
        finally:
            restore(kept, self._device)

    def _seed_all(self, seed: int) -> None:
        seed_host_streams(seed)
        if self._device is not None:
            self._device.seed(seed)
