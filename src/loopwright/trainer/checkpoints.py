"""A run's state on its way to disk and back, with the hooks around it."""

from __future__ import annotations

from pathlib import Path

from loopwright.checkpoint import (
    Checkpoint,
    load_weights,
    plain_names,
    read_checkpoint,
    resolve,
    step_folder,
    write_checkpoint,
)
from loopwright.engine.binding import call_hooks
from loopwright.engine.parts import Parts
from loopwright.engine.state import apply_state, check_fit_state, gather_state
from loopwright.errors import CheckpointError
from loopwright.plan import Plan


def save_run(parts: Parts, folder: Path, plan: Plan | None) -> Path:
    """Save the run's state as the checkpoint ``folder``.

    Raises:
        RuntimeError: inside a step, whose gradients no checkpoint holds.
        CheckpointError: if it cannot be written.
    """
    if parts.state.is_inside_window:
        raise RuntimeError("A checkpoint is saved at a step's end; this step is not completed.")
    settings = None if plan is None else plan.settings()
    state = {"model": plain_names(parts.model), **gather_state(parts, settings)}
    call_hooks(parts.hooks["on_save_checkpoint"], parts.trainer, state)
    call_hooks(parts.hooks["postprocess_checkpoint"], parts.trainer, state)
    write_checkpoint(folder, state, step=parts.state.global_step)
    call_hooks(parts.hooks["on_after_save_checkpoint"], parts.trainer, folder)
    return folder


def find_run(parts: Parts, path: str | Path, run_dir: Path | None) -> Path:
    """The checkpoint that ``path`` means: "last" and "best" are those of this run, anything else is a path.

    Raises:
        CheckpointError: if there is none.
    """
    if path not in ("last", "best"):
        return resolve(path)
    if run_dir is None:
        raise CheckpointError(f'ckpt_path="{path}": this trainer has no run_dir; expected a path.')
    if path == "last":
        return resolve(run_dir)
    best = parts.log.best
    if best is None:
        raise CheckpointError('ckpt_path="best": no value of the monitored metric was logged yet.')
    return resolve(step_folder(run_dir, best.step))


def read_run(parts: Parts, folder: Path) -> Checkpoint:
    """Read and verify the checkpoint ``folder``, and let callbacks change what was read."""
    call_hooks(parts.hooks["on_before_load_checkpoint"], parts.trainer, folder)
    checkpoint = read_checkpoint(folder)
    call_hooks(parts.hooks["preprocess_checkpoint"], parts.trainer, checkpoint.state)
    return checkpoint


def resume_run(parts: Parts, checkpoint: Checkpoint) -> None:
    """Go on from a checkpoint that `read_run` read, in every respect.

    Raises:
        CheckpointError: if it does not belong to these parts.
    """
    check_fit_state(parts, checkpoint.state, checkpoint.path)
    load_model(parts, checkpoint)
    apply_state(parts, checkpoint.state)
    call_hooks(parts.hooks["on_load_checkpoint"], parts.trainer, checkpoint.state)


def load_model(parts: Parts, checkpoint: Checkpoint) -> None:
    """Load the weights of a checkpoint, and nothing else of it.

    Raises:
        CheckpointError: naming the checkpoint and the weights that do not fit.
    """
    try:
        load_weights(parts.model, checkpoint.state["model"])
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint.path}: {error}") from None
