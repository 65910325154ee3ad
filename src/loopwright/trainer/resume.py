"""Functions that save, find, read and load the checkpoints of a run, and call the hooks for checkpoints."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loopwright.checkpoint import (
    Checkpoint,
    check_weights,
    choose,
    load_weights,
    parameter_names,
    plain_names,
    plain_parameters,
    refuse_lazy,
    resolve,
    step_folder,
    unsaved_buffers,
    write_checkpoint,
)
from loopwright.engine.added_groups import add_saved_groups, adopt_groups, drop_groups
from loopwright.engine.hook_table import call_hooks
from loopwright.engine.parts import Parts
from loopwright.engine.recorded_settings import changed_device, run_settings, settings_differences
from loopwright.engine.state import apply_state, gather_state, loading
from loopwright.engine.state_check import BUFFER, COUNT, SCALAR, check_fit_state, check_form, position_form
from loopwright.errors import CheckpointError, SettingError, refuse_type
from loopwright.plan import ADDED_SETTINGS, Plan, plan_differences
from loopwright.trainer.first_process import in_first_process
from loopwright.trainer.rank_states import check_rank_states, gather_rank_states, restore_rank_state
from loopwright.trainer.sharded_states import read_for, save_shards

_log = logging.getLogger("loopwright")


def save_run(parts: Parts, folder: Path, plan: Plan | None) -> Path:
    """Save the state of a run as the checkpoint ``folder``, and return ``folder``.

    Raises:
        RuntimeError: if a step is not completed, because a checkpoint does not contain gradients.
        SaveError: if the checkpoint cannot be written.
    """
    ranks, state = parts.strategy.ranks, run_state(parts, plan)
    step, world_size = parts.state.global_step, ranks.world_size
    if parts.strategy.is_sharded:
        save_shards(ranks, folder, state, step)
    else:
        in_first_process(ranks, lambda: str(write_checkpoint(folder, state, step=step, world_size=world_size)))
    call_hooks(parts.hooks["on_after_save_checkpoint"], parts.trainer, folder)
    return folder


def run_state(parts: Parts, plan: Plan | None) -> dict[str, Any]:
    """Return the contents of a checkpoint of the run, including entries that callbacks add. Tensors are not copied.

    Raises:
        RuntimeError: if a step is not completed.
    """
    if parts.state.is_inside_window:
        raise RuntimeError("A checkpoint is saved at the end of a step; this step is not completed.")
    parts.strategy.equalise_buffers()
    if parts.optimizer is not None:
        adopt_groups(parts.optimizer, parts.schedulers)  # the next update may happen only after a resume
    state = {
        "model": plain_names(parts.model),
        "buffers": unsaved_buffers(parts.model),
        "parameters": parameter_names(parts.model, parts.optimizer),
        "frozen": [name for name, each in plain_parameters(parts.model).items() if not each.requires_grad],
        **gather_state(parts, None if plan is None else plan.settings()),
        **gather_rank_states(parts),
    }
    call_hooks(parts.hooks["on_save_checkpoint"], parts.trainer, state)
    call_hooks(parts.hooks["postprocess_checkpoint"], parts.trainer, state)
    return state


def find_run(parts: Parts, path: str | Path | int, run_dir: Path | None) -> Path:
    """Return the folder of a checkpoint.

    Args:
        parts: model, device, hooks and other objects of this run; see `Parts`.
        path: path of the checkpoint; or "last", "best" or a step of this run. If the trainer has not logged the
            monitored metric, the checkpoints in ``run_dir`` determine "best".
        run_dir: run directory of the trainer; None: no run directory.

    Raises:
        CheckpointError: if there is no such checkpoint.
        SettingTypeError: if ``path`` has another type, or if ``path`` is a step and ``run_dir`` is None.
    """
    if isinstance(path, int) and run_dir is not None:
        path = step_folder(run_dir, path)
    if not isinstance(path, str | os.PathLike):
        raise refuse_type("ckpt_path", path, 'a path, "last" or "best", or with run_dir a step')
    if path not in ("last", "best"):
        return choose(path).folder
    if run_dir is None:
        raise CheckpointError(f'ckpt_path="{path}": this trainer has no run_dir; expected a path.')
    if path == "last":
        return resolve(run_dir)
    best, saved = parts.log.best, parts.log.best_saved
    if best is None:
        return choose(run_dir / "best").folder
    if saved is None or not step_folder(run_dir, saved.step).is_dir():
        raise CheckpointError(
            f'ckpt_path="best": the best {best.name} is of step {best.step}, which was not saved; give the path '
            "of a checkpoint, or save each validated step with Checkpointing(at_validations=True)."
        )
    if saved != best:
        unsaved = f"the best {best.name} is of step {best.step}, which was not saved"
        _log.warning('ckpt_path="best": %s; the best saved step is %d.', unsaved, saved.step)
    return resolve(step_folder(run_dir, saved.step))


def read_run(parts: Parts, folder: Path, *, weights_only: bool) -> Checkpoint:
    """Read and verify the checkpoint ``folder``, and call the hooks before and after the read.

    Args:
        parts: model, device, hooks and other objects of this run; see `Parts`.
        folder: folder of the checkpoint.
        weights_only: whether to read only the weights. All entries are read nevertheless if a callback implements
            ``preprocess_checkpoint`` or ``on_load_checkpoint``.

    Raises:
        CheckpointError: if the checkpoint cannot be read, or if the model has lazy parameters.
    """
    hooks = parts.hooks
    with naming(folder):
        refuse_lazy(parts.model)
    call_hooks(hooks["on_before_load_checkpoint"], parts.trainer, folder)
    is_looked_at = hooks["preprocess_checkpoint"] or hooks["on_load_checkpoint"]
    checkpoint = read_for(parts, folder, weights_only=weights_only and not is_looked_at)
    call_hooks(hooks["preprocess_checkpoint"], parts.trainer, checkpoint.state)
    return checkpoint


def saved_plan(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """Return the plan settings in a checkpoint, with the values in `ADDED_SETTINGS` for settings that are missing.

    Raises:
        CheckpointError: if the checkpoint has no plan, or if the step of the checkpoint is not in the plan.
    """
    step, saved = checkpoint.step, checkpoint.state.get("plan", {})
    steps = {"start_step": range(step + 1), "start_micro_batch": COUNT, "stop_step": range(step, COUNT.stop)}
    with naming(checkpoint.path):
        if saved is None:
            raise CheckpointError("was saved before the first fit; expected a checkpoint that a fit has saved.")
        check_form({"plan": {**steps, "*": SCALAR}}, checkpoint.state)
    return {**ADDED_SETTINGS, **saved}


def saved_seed(checkpoint: Checkpoint) -> int:
    """Return the seed of the run of a checkpoint.

    Raises:
        CheckpointError: if the checkpoint has no seed.
    """
    with naming(checkpoint.path):
        check_form({"streams": {"seed": COUNT, "*": None}}, checkpoint.state)
    seed: int = checkpoint.state["streams"]["seed"]
    return seed


def changed_settings(parts: Parts, checkpoint: Checkpoint) -> list[str]:
    """Return a line for each setting that differs between this run and the run of a checkpoint.

    Settings of the plan are not compared. A setting that is unknown in one of the two runs is ignored.

    Raises:
        CheckpointError: if the checkpoint has no settings.
    """
    with naming(checkpoint.path):
        check_form({"settings": {"*": SCALAR}}, checkpoint.state)
    saved = checkpoint.state["settings"]
    own = run_settings(parts) | {"device": None}  # a device that the user chose may differ
    return [*settings_differences(saved, own), *changed_device(parts, saved)]


def rest_of_run(checkpoint: Checkpoint, saved: Mapping[str, Any], whole: Plan, more: Sequence[str] = ()) -> Plan:
    """Return the remaining stages of ``whole`` after the step of a checkpoint.

    Args:
        checkpoint: checkpoint of the saved run.
        saved: plan settings of the saved run.
        whole: plan of the same fit, computed from the settings of this run. ``whole`` may end at a later step.
        more: one line for each other difference between the two runs.

    Raises:
        CheckpointError: if ``saved`` lacks a setting, or if the position in the checkpoint is malformed.
        SettingError: if a resume does not allow a difference between the runs. The message lists all such differences.
    """
    own = whole.settings()
    names = [name for name in own if not name.startswith(("validate.", "downstream."))]
    with naming(checkpoint.path):
        form = {"plan": dict.fromkeys([*names, "*"]), "position": position_form(checkpoint.step)}
        check_form(form, {**checkpoint.state, "plan": saved})
    differences = [*more, *plan_differences(saved, own)]
    if differences:
        raise SettingError(
            "ckpt_path",
            f"={checkpoint.path}: its run had other settings ({'; '.join(differences)}); expected the same settings, "
            "or a later end; init_from starts a new run with its weights.",
        )
    return whole.after(checkpoint.step, checkpoint.state["position"]["num_validated"])


@contextmanager
def saved_groups_added(parts: Parts, checkpoint: Checkpoint) -> Iterator[None]:
    """Add the parameter groups that were added during the saved run. If the context raises, remove these groups.

    Raises:
        CheckpointError: if a saved group cannot be added to the optimizer.
    """
    optimizer = parts.optimizer
    assert optimizer is not None, "fit checks that there is an optimizer"
    num_groups = len(optimizer.param_groups)
    try:
        with naming(checkpoint.path):
            names = parameter_names(parts.model, optimizer)
            add_saved_groups(optimizer, names, plain_parameters(parts.model), checkpoint.state)
        adopt_groups(optimizer, parts.schedulers)
        yield
    except BaseException:
        drop_groups(optimizer, parts.schedulers, num_groups)
        raise


def resume_run(parts: Parts, checkpoint: Checkpoint) -> None:
    """Load the whole state of a checkpoint that `read_run` has read.

    The saved ``requires_grad`` of each parameter is restored. A callback may have changed ``requires_grad`` earlier in
    the saved run, and may not change it again in this run.

    Raises:
        CheckpointError: if the checkpoint does not fit this run. All entries are checked before the first entry is
            loaded. After an error in a ``load_state_dict``, some entries are loaded and others are not.
    """
    with naming(checkpoint.path):
        check_weights(parts.model, checkpoint.state["model"])
        check_fit_state(parts, parameter_names(parts.model, parts.optimizer), checkpoint.state, checkpoint.step)
        check_rank_states(parts, checkpoint.state)
        frozen = _frozen_names(parts, checkpoint.state)
    load_model(parts, checkpoint)
    with naming(checkpoint.path):
        apply_state(parts, checkpoint.state)
        with loading("ranks"):
            restore_rank_state(parts, checkpoint.state, checkpoint.step)
    if frozen is not None:
        for name, parameter in plain_parameters(parts.model).items():
            parameter.requires_grad_(name not in frozen)
    parts.log.note_saved(checkpoint.step)
    call_hooks(parts.hooks["on_load_checkpoint"], parts.trainer, checkpoint.state)


def _frozen_names(parts: Parts, saved: Mapping[str, Any]) -> set[str] | None:
    """Return the names of the frozen parameters in a checkpoint; None for an older checkpoint without these names.

    Raises:
        CheckpointError: if a name is not the name of a parameter, or if the name of a parameter of an integer dtype is
            missing.
    """
    if "frozen" not in saved:
        return None
    parameters = plain_parameters(parts.model)
    must_be_frozen = [name for name, each in parameters.items() if not (each.is_floating_point() or each.is_complex())]
    names = saved["frozen"]
    check_form({"frozen": [frozenset(parameters)] * len(names) if isinstance(names, list) else []}, saved)
    if not {*must_be_frozen} <= {*names}:
        raise CheckpointError(f"frozen: expected {must_be_frozen[0]} too, which cannot have a gradient.")
    return {*names}


def load_model(parts: Parts, checkpoint: Checkpoint) -> None:
    """Load the weights, and the non-persistent buffers if they were saved, of a checkpoint that `read_run` has read.

    Raises:
        CheckpointError: if the weights do not fit the model. The message names the checkpoint and the weights.
    """
    state, buffers = checkpoint.state, None
    with naming(checkpoint.path):
        check_weights(parts.model, state["model"])
        if "buffers" in state:
            check_form({"buffers": dict.fromkeys(unsaved_buffers(parts.model), BUFFER)}, state)
            buffers = state["buffers"]
        notes = load_weights(parts.model, state["model"], buffers)
    if notes:
        _log.warning("%s: replaces buffers of another shape or dtype: %s.", checkpoint.path, "; ".join(notes))


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add the path of the checkpoint to the beginning of the message of a `CheckpointError`."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
