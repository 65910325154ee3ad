"""`PassGenerators`: generators of a pass in the place of those that a dataloader or a sampler was given."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from loopwright.seeding import derive


class PassGenerators:
    """While a block lasts, each ``generator`` is one that its own first seed, the run's and the pass alone decide.

    They go on from block to block, so that what draws as it goes never sees the same numbers twice. Outside of a block
    the user's are in their places, as they were.

    Args:
        parts: that may have a torch generator as ``generator``; one that several share stays shared.
        seed: of the run.
        pass_index: of the pass that begins.
    """

    def __init__(self, parts: Iterable[Any], seed: int, pass_index: int) -> None:
        owners = [(part, getattr(part, "generator", None)) for part in parts]
        given = [(part, own) for part, own in owners if isinstance(own, torch.Generator)]
        made = {id(own): _of_pass(own, seed, pass_index) for _, own in given}
        self._swaps = [(part, own, made[id(own)]) for part, own in given]

    def __enter__(self) -> None:
        """Put those of the pass in place."""
        for part, _, made in self._swaps:
            part.generator = made

    def __exit__(self, *error: object) -> None:
        """Give the user's back."""
        for part, own, _ in self._swaps:
            part.generator = own


def _of_pass(own: torch.Generator, seed: int, pass_index: int) -> torch.Generator:
    return torch.Generator(own.device).manual_seed(derive(derive(seed, own.initial_seed()), pass_index))
