"""Checks of what a trainer is given, before anything is built."""

from __future__ import annotations

import numbers
from pathlib import Path

from loopwright.checkpoint import Checkpointing
from loopwright.errors import SettingError, refuse, refuse_type
from loopwright.loop import LoopCallback, TrainingLoop, ValidationLoop
from loopwright.precision import Precision
from loopwright.seeding import draw_seed


def check_loop(loop: LoopCallback | None) -> LoopCallback:
    """The loop given; by default a fit of one epoch."""
    if loop is None:
        return TrainingLoop(num_epochs=1)
    if not isinstance(loop, LoopCallback):
        raise refuse_type("loop", loop, "a TrainingLoop or a ValidationLoop")
    return loop


def check_checkpoint(checkpoint: Checkpointing | None, run_dir: str | Path | None) -> Checkpointing | None:
    """The checkpoint settings given, which need a place to write to."""
    if checkpoint is None:
        return None
    if not isinstance(checkpoint, Checkpointing):
        raise refuse_type("checkpoint", checkpoint, "a Checkpointing")
    if run_dir is None:
        raise SettingError("checkpoint", "=Checkpointing(…) without run_dir: expected run_dir, a folder to save to.")
    return checkpoint


def check_precision(precision: Precision | None) -> Precision:
    """The precision given; by default float32 without clipping."""
    if precision is not None and not isinstance(precision, Precision):
        raise refuse_type("precision", precision, "a Precision")
    return precision or Precision()


def check_seed(seed: int | None) -> int:
    """The seed given, or one that is drawn."""
    if seed is None:
        return draw_seed()
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral):
        raise refuse_type("seed", seed, "a whole number, 0 or more", "use null to draw one")
    if not 0 <= seed < 1 << 63:
        raise refuse("seed", seed, "a whole number in [0, 2**63)", "use null to draw one")
    return int(seed)


def check_start(ckpt_path: str | Path | None, init_from: str | Path | None, global_step: int) -> None:
    """Refuse to begin a fit with two checkpoints, or with the weights of one in the middle of a run."""
    if ckpt_path is not None and init_from is not None:
        raise SettingError("init_from", f"={init_from} and ckpt_path={ckpt_path}: expected one of the two.")
    if init_from is not None and global_step:
        problem = f"={init_from}: begins at step 0, but this trainer is at step {global_step}; use a new one."
        raise SettingError("init_from", problem)


def training_loop(loop: LoopCallback) -> TrainingLoop:
    """The loop of a fit.

    Raises:
        SettingTypeError: for a `ValidationLoop`.
    """
    if not isinstance(loop, TrainingLoop):
        raise refuse_type("loop", loop, "a TrainingLoop for fit", "use validate with a ValidationLoop")
    return loop


def validation_loop(loop: LoopCallback | None, own: LoopCallback) -> ValidationLoop:
    """The loop of a validation: the one given, else the trainer's own; of a `TrainingLoop` its ``val_loop``."""
    chosen = own if loop is None else loop
    if isinstance(chosen, TrainingLoop):
        return chosen.val_loop
    if not isinstance(chosen, ValidationLoop):
        raise refuse_type("loop", chosen, "a ValidationLoop or a TrainingLoop")
    return chosen
