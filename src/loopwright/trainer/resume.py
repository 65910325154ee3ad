"""A run's state on its way to disk and back, with the hooks around it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from loopwright.checkpoint import (
    Checkpoint,
    load_weights,
    parameter_names,
    plain_names,
    read_checkpoint,
    refuse_lazy,
    resolve,
    step_folder,
    unsaved_buffers,
    write_checkpoint,
)
from loopwright.engine.hook_table import call_hooks
from loopwright.engine.parts import Parts
from loopwright.engine.recorded_settings import run_settings, settings_differences
from loopwright.engine.state import apply_state, gather_state
from loopwright.engine.state_check import check_fit_state, is_count
from loopwright.errors import CheckpointError, SettingError, on_one_line
from loopwright.plan import Plan, plan_differences

_log = logging.getLogger("loopwright")


def save_run(parts: Parts, folder: Path, plan: Plan | None) -> Path:
    """Save the run's state as the checkpoint ``folder``.

    Raises:
        RuntimeError: inside a step, whose gradients no checkpoint holds.
        SaveError: if it cannot be written.
    """
    write_checkpoint(folder, run_state(parts, plan), step=parts.state.global_step)
    call_hooks(parts.hooks["on_after_save_checkpoint"], parts.trainer, folder)
    return folder


def run_state(parts: Parts, plan: Plan | None) -> dict[str, Any]:
    """What a checkpoint of the run holds, with what its callbacks have put there; the tensors are the run's own.

    Raises:
        RuntimeError: inside a step.
    """
    if parts.state.is_inside_window:
        raise RuntimeError("A checkpoint is saved at a step's end; this step is not completed.")
    parts.strategy.equalise_buffers()
    state = {
        "model": plain_names(parts.model),
        "buffers": unsaved_buffers(parts.model),
        "parameters": parameter_names(parts.model, parts.optimizer),
        **gather_state(parts, None if plan is None else plan.settings()),
    }
    call_hooks(parts.hooks["on_save_checkpoint"], parts.trainer, state)
    call_hooks(parts.hooks["postprocess_checkpoint"], parts.trainer, state)
    return state


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
    best, saved = parts.log.best, parts.log.best_saved
    if best is None:
        raise CheckpointError(
            'ckpt_path="best": the best step is known to the trainer that logged it; expected a path.'
        )
    if saved is None or not step_folder(run_dir, saved.step).is_dir():
        raise CheckpointError(
            f'ckpt_path="best": the best {best.name} is that of step {best.step}, which was not saved; '
            "save where it is validated (every_n_steps), or name a checkpoint."
        )
    if saved != best:
        unsaved = f"the best {best.name} is that of step {best.step}, which was not saved"
        _log.warning('ckpt_path="best": %s; the best that was is step %d.', unsaved, saved.step)
    return resolve(step_folder(run_dir, saved.step))


def read_run(parts: Parts, folder: Path, *, weights_only: bool) -> Checkpoint:
    """Read and verify the checkpoint ``folder``, and let callbacks change what was read.

    Args:
        parts: of this run.
        folder: the checkpoint.
        weights_only: whether nothing but the weights is wanted, unless a callback looks at the rest.
    """
    hooks = parts.hooks
    with _naming(folder):
        refuse_lazy(parts.model)
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
    saved = entry_of(checkpoint, "plan")
    if saved is None:
        raise CheckpointError(f"{checkpoint.path}: was saved before the first fit; expected the checkpoint of a fit.")
    if not isinstance(saved, Mapping) or not all(isinstance(name, str) for name in saved):
        raise CheckpointError(f"{checkpoint.path}: plan: expected its settings by name.")
    for name in ("start_step", "start_micro_batch", "stop_step"):
        if not is_count(saved.get(name)):
            raise CheckpointError(f"{checkpoint.path}: plan: expected {name}, a whole number, 0 or more.")
    if not saved["start_step"] <= checkpoint.step <= saved["stop_step"]:
        raise CheckpointError(f"{checkpoint.path}: plan: step {checkpoint.step} is not one of its steps.")
    return saved


def saved_seed(checkpoint: Checkpoint) -> int:
    """The seed of a checkpoint's run.

    Raises:
        CheckpointError: if it has none.
    """
    streams = entry_of(checkpoint, "streams")
    seed = streams.get("seed") if isinstance(streams, dict) else None
    if type(seed) is not int:
        raise CheckpointError(f"{checkpoint.path}: streams.seed: expected a whole number.")
    return seed


def changed_settings(parts: Parts, checkpoint: Checkpoint) -> list[str]:
    """Where this run is known to differ from that of a checkpoint beside the plan, a line each.

    Raises:
        CheckpointError: if it does not say.
    """
    saved = entry_of(checkpoint, "settings")
    if not isinstance(saved, Mapping):
        raise CheckpointError(f"{checkpoint.path}: settings: expected a mapping.")
    return settings_differences(saved, run_settings(parts))


def rest_of_run(checkpoint: Checkpoint, saved: Mapping[str, Any], whole: Plan, more: Sequence[str] = ()) -> Plan:
    """What is left of ``whole`` for the run of a checkpoint; a later end is allowed, and said.

    Args:
        checkpoint: of the run.
        saved: the settings of the plan that it was begun with.
        whole: the plan of the same fit by the settings of today.
        more: other differences to that run, a line each.

    Raises:
        SettingError: naming every other difference to the plan that the run was begun with.
    """
    own = whole.settings()
    missing = [name for name in own if name not in saved and not name.startswith(("validate.", "downstream."))]
    if missing:
        raise CheckpointError(f"{checkpoint.path}: plan: lacks {', '.join(missing)}.")
    differences = [*more, *plan_differences(saved, own)]
    if differences:
        raise SettingError(
            "ckpt_path",
            f"={checkpoint.path}: its run was planned otherwise ({'; '.join(differences)}); "
            "expected the same settings, or a longer end; init_from begins a new run with its weights.",
        )
    position = entry_of(checkpoint, "position")
    num_validated = position.get("num_validated") if isinstance(position, dict) else None
    if not is_count(num_validated):
        raise CheckpointError(f"{checkpoint.path}: position: expected num_validated, a whole number, 0 or more.")
    return whole.after(checkpoint.step, num_validated)


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
    parameters, _ = entry_of(checkpoint, "parameters"), entry_of(checkpoint, "buffers")
    with _naming(checkpoint.path):
        check_fit_state(parts, checkpoint.state, checkpoint.step)
        _check_parameters(parameter_names(parts.model, parts.optimizer), parameters)
    load_model(parts, checkpoint)
    with _naming(checkpoint.path):
        apply_state(parts, checkpoint.state)
    parts.log.note_saved(checkpoint.step)
    call_hooks(parts.hooks["on_load_checkpoint"], parts.trainer, checkpoint.state)


def load_model(parts: Parts, checkpoint: Checkpoint, *, weights_only: bool = False) -> None:
    """Load what a checkpoint holds of the model, and nothing else of it.

    Args:
        parts: of this run.
        checkpoint: as read.
        weights_only: whether buffers that are not persistent stay as they are, as they do where it holds weights alone.

    Raises:
        CheckpointError: naming the checkpoint and what does not fit.
    """
    buffers = None if weights_only or "buffers" not in checkpoint.state else _checked_buffers(checkpoint)
    with _naming(checkpoint.path):
        notes = load_weights(parts.model, checkpoint.state["model"], buffers)
    if notes:
        _log.warning("%s: not as in the model, and taken over: %s.", checkpoint.path, "; ".join(notes))


def _checked_buffers(checkpoint: Checkpoint) -> dict[str, Tensor | None]:
    saved = entry_of(checkpoint, "buffers")
    if not isinstance(saved, dict):
        raise CheckpointError(f"{checkpoint.path}: buffers: expected tensors by name.")
    for name, buffer in saved.items():
        if not isinstance(name, str) or not isinstance(buffer, Tensor | None):
            raise CheckpointError(f"{checkpoint.path}: buffers.{on_one_line(str(name), 80)}: expected a tensor.")
    return saved


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Say of which checkpoint an error speaks."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _check_parameters(own: Sequence[Sequence[str]], saved: Any) -> None:
    """Refuse the state of an optimizer over other parameters, or the same in another order, which goes by number."""
    if not isinstance(saved, list) or [len(names) for names in saved] != [len(names) for names in own]:
        raise CheckpointError("parameters: expected the names of the optimizer's, group by group.")
    for index, (names, saved_names) in enumerate(zip(own, saved, strict=True)):
        for number, (name, saved_name) in enumerate(zip(names, saved_names, strict=True)):
            if name != saved_name:
                what = f"parameter {number} of the optimizer's group {index}"
                raise CheckpointError(f"parameters: {what} is {on_one_line(str(saved_name), 80)}, in this run {name}.")
