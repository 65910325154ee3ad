"""A run's state on its way to disk and back, with the hooks around it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
from loopwright.errors import CheckpointError, SettingError
from loopwright.plan import Plan, plan_differences


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
        raise CheckpointError(
            'ckpt_path="best": the best step is known to the trainer that logged it; expected a path.'
        )
    folder = step_folder(run_dir, best.step)
    if not folder.is_dir():
        raise CheckpointError(
            f'ckpt_path="best": the best {best.name} is that of step {best.step}, which was not saved; '
            "save where it is validated (every_n_steps), or name a checkpoint."
        )
    return resolve(folder)


def read_run(parts: Parts, folder: Path, *, weights_only: bool) -> Checkpoint:
    """Read and verify the checkpoint ``folder``, and let callbacks change what was read.

    Args:
        parts: of this run.
        folder: the checkpoint.
        weights_only: whether nothing but the weights is wanted, unless a callback looks at the rest.
    """
    hooks = parts.hooks
    call_hooks(hooks["on_before_load_checkpoint"], parts.trainer, folder)
    is_looked_at = hooks["preprocess_checkpoint"] or hooks["on_load_checkpoint"]
    checkpoint = read_checkpoint(folder, weights_only=weights_only and not is_looked_at)
    call_hooks(parts.hooks["preprocess_checkpoint"], parts.trainer, checkpoint.state)
    return checkpoint


def saved_plan(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """The settings of the plan that a checkpoint's run was carrying out.

    Raises:
        CheckpointError: if it was carrying out none.
    """
    saved: Mapping[str, Any] | None = entry_of(checkpoint, "plan")
    if saved is None:
        raise CheckpointError(f"{checkpoint.path}: was saved before the first fit; expected the checkpoint of a fit.")
    return saved


def rest_of_run(checkpoint: Checkpoint, saved: Mapping[str, Any], whole: Plan) -> Plan:
    """What is left of ``whole`` for the run of a checkpoint; a later end is allowed, and said.

    Raises:
        SettingError: naming every other difference to the plan that the run was begun with.
    """
    differences = plan_differences(saved, whole.settings())
    if differences:
        raise SettingError(
            "ckpt_path",
            f"={checkpoint.path}: its run was planned otherwise ({'; '.join(differences)}); "
            "expected the same settings, or a longer end; init_from begins a new run with its weights.",
        )
    return whole.after(checkpoint.step, entry_of(checkpoint, "position")["num_validated"])


def entry_of(checkpoint: Checkpoint, key: str) -> Any:
    """An entry of a checkpoint's state.

    Raises:
        CheckpointError: if it has none.
    """
    if key not in checkpoint.state:
        raise CheckpointError(f"{checkpoint.path}: holds no {key}; expected the checkpoint of a fit.")
    return checkpoint.state[key]


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
