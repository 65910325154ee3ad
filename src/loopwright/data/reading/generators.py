"""`PassGenerators`: replaces the generators of a dataloader and its samplers during a pass."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from loopwright.seeding import derive


class PassGenerators:
    """Context manager that replaces generators by new ones, whose numbers are reproducible for each pass.

    The seed of a new generator depends on the old generator's initial seed, the run's seed and the pass. The new
    generators keep their state when the context is left and entered again, so that a sampler that draws numbers step
    by step gets no number twice. Outside the context, the user's generators are in place, unchanged.

    Args:
        parts: objects that may have a torch generator as ``generator``. If several objects have the same generator,
            they get the same new one.
        seed: seed of the run.
        pass_index: number of the pass that begins.
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
        """Put the user's generators back."""
        for part, own, _ in self._swaps:
            part.generator = own


def _of_pass(own: torch.Generator, seed: int, pass_index: int) -> torch.Generator:
    return torch.Generator(own.device).manual_seed(derive(derive(seed, own.initial_seed()), pass_index))
