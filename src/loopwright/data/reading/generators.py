"""`PassGenerators`, a context manager that replaces the generators of a dataloader and its samplers during one pass."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from loopwright.seeding import derive


class PassGenerators:
    """Replaces torch generators by new ones for one pass, so that the pass draws reproducible numbers.

    The seed of a new generator depends on the original generator's initial seed, the run's seed and the index of the
    pass. The new generators keep their states between two ``with`` blocks. A sampler that draws a few numbers in
    each ``with`` block therefore continues its sequence. On exit, the original generators are restored unchanged.

    Args:
        parts: objects that may have a `torch.Generator` in their attribute ``generator``. Objects that share a
            generator also share its replacement.
        seed: seed of the run.
        pass_index: index of the pass, from 0.
    """

    def __init__(self, parts: Iterable[Any], seed: int, pass_index: int) -> None:
        owners = [(part, getattr(part, "generator", None)) for part in parts]
        given = [(part, own) for part, own in owners if isinstance(own, torch.Generator)]
        made = {id(own): _of_pass(own, seed, pass_index) for _, own in given}
        self._swaps = [(part, own, made[id(own)]) for part, own in given]

    def __enter__(self) -> None:
        """Install the generators of the pass."""
        for part, _, made in self._swaps:
            part.generator = made

    def __exit__(self, *error: object) -> None:
        """Put the original generators back."""
        for part, own, _ in self._swaps:
            part.generator = own


def _of_pass(own: torch.Generator, seed: int, pass_index: int) -> torch.Generator:
    return torch.Generator(own.device).manual_seed(derive(derive(seed, own.initial_seed()), pass_index))
