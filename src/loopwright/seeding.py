"""Random streams that belong to someone: captured, seeded, swapped in and back.

A stream set is Python's ``random``, NumPy's legacy generator (where NumPy is imported), torch's CPU generator
and, where there is one, the accelerator's.
"""

from __future__ import annotations

import hashlib
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


def sample_seed(seed: int, pass_index: int, index: int) -> int:
    """A 64-bit seed for reading one sample in one pass; by splitmix64 (Steele et al. 2014), as `derive` is slower."""
    mixed = seed & _MASK
    for word in (pass_index, index):
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
        with self._caller_kept():
            self._seed_all(derive(self._seed, *key))
            yield

    def state_dict(self) -> dict[str, Any]:
        """The seed and the present state, as lists and tensors."""
        states = capture(self._device) if self._is_active else dict(self._states)
        if states["numpy"] is not None:
            name, keys, *rest = states["numpy"]
            states["numpy"] = (str(name), [int(key) for key in keys], *rest)
        return {"seed": self._seed, **states}

    def load_state_dict(self, states: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        self._seed = states["seed"]
        self._states = {name: state for name, state in states.items() if name != "seed"}
        if self._is_active:
            restore(self._states, self._device)

    @contextmanager
    def _caller_kept(self) -> Iterator[None]:
        kept = capture(self._device)
        try:
            yield
        finally:
            restore(kept, self._device)

    def _seed_all(self, seed: int) -> None:
        seed_host_streams(seed)
        if self._device is not None:
            self._device.seed(seed)
