"""`Start`, the arguments that choose the initial checkpoint of a fit, and functions that read and load it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from loopwright.checkpoint import (
    Checkpoint,
    check_weights,
    fitting_weights,
    load_fitting_weights,
    load_weights,
    parameter_names,
    plain_parameters,
)
from loopwright.engine.parts import Parts
from loopwright.engine.state import load_optimizer, loading
from loopwright.errors import CheckpointError, SettingError, on_one_line, refuse_type
from loopwright.trainer.ranked_saving import Saver
from loopwright.trainer.resume import find_run, naming, read_run

_MAX_SHOWN = 5  # largest number of names in a message
_WEIGHTS_ONLY = "leave out init_optimizer to load the weights alone"
_NOT_STRICT = "strict=False (in a configuration: init_strict=false)"

_log = logging.getLogger("loopwright")


@dataclass(frozen=True, slots=True)
class Start:
    """Arguments of `Trainer.fit` that choose the checkpoint from which a fit starts, and the entries to load from it.

    Args:
        ckpt_path: checkpoint from which the run is resumed; None: the fit does not resume a run.
        init_from: checkpoint from which a new run gets its weights; None: no weights are loaded.
        strict: whether the names, shapes and dtypes of all weights in ``init_from`` must match the model.
        init_optimizer: whether the optimizer also gets its state from ``init_from``.
        global_step: ``global_step`` of the trainer before the fit.

    Raises:
        SettingError: if both paths are given; if ``init_from`` is given and ``global_step`` is not 0; if ``strict`` or
            ``init_optimizer`` is set without ``init_from``.
    """

    ckpt_path: str | Path | int | None
    init_from: str | Path | None
    strict: bool
    init_optimizer: bool
    global_step: int

    def __post_init__(self) -> None:
        """Check the arguments."""
        for name, value, default in (("strict", self.strict, True), ("init_optimizer", self.init_optimizer, False)):
            if not isinstance(value, bool):
                raise refuse_type(name, value, "True or False")
            if value is not default and self.init_from is None:
                raise SettingError(name, f"={value}: is used only with init_from; give init_from as well.")
        if self.ckpt_path is not None and self.init_from is not None:
            problem = f"={self.init_from} and ckpt_path={self.ckpt_path}: expected only one of them."
            raise SettingError("init_from", problem)
        if self.init_from is not None and self.global_step:
            at = f"this trainer is at step {self.global_step}"
            raise SettingError("init_from", f"={self.init_from}: expected step 0, but {at}; use a new trainer.")

    @property
    def resumes(self) -> bool:
        """Whether the fit resumes the run of ``ckpt_path``."""
        return self.ckpt_path is not None


def read_start(parts: Parts, run_dir: Path | None, saver: Saver | None, start: Start) -> Checkpoint | None:
    """Read the checkpoint from which a fit starts. Return None if the fit starts without a checkpoint.

    Raises:
        CheckpointError: if the checkpoint is missing or cannot be read.
    """
    path = start.ckpt_path if start.init_from is None else start.init_from
    if path is None:
        return None
    weights_only = not start.resumes and not start.init_optimizer
    checkpoint = read_run(parts, find_run(parts, path, run_dir), weights_only=weights_only)
    if saver is not None and start.resumes:
        saver.resume_from(checkpoint.path, checkpoint.step)
    return checkpoint


def load_initial(parts: Parts, checkpoint: Checkpoint, start: Start) -> None:
    """Load the weights of ``init_from``, and the state of the optimizer if ``init_optimizer`` is True.

    Learning rates and other settings of the optimizer are not loaded. If ``strict`` is False, one warning lists the
    weights that are not loaded, and the parameters without a state in the optimizer.

    Raises:
        CheckpointError: if the checkpoint does not fit this run. All entries are checked before the first entry is
            loaded. After an error in a ``load_state_dict``, some weights or states may already be loaded.
    """
    model, optimizer, saved = parts.model, parts.optimizer, checkpoint.state
    assert optimizer is not None, "checked by fit"
    with naming(checkpoint.path):
        states = check_initial(model, optimizer, saved, strict=start.strict, init_optimizer=start.init_optimizer)
        lines = [] if start.strict else load_fitting_weights(model, saved["model"])
        if start.strict:
            load_weights(model, saved["model"])
        if start.init_optimizer:
            lines += _load_states(model, optimizer, states)
    if lines and not start.strict:
        _log.warning("%s: %s.", checkpoint.path, "; ".join(lines))


def check_initial(
    model: nn.Module | None,
    optimizer: Optimizer | None,
    saved: Mapping[str, Any],
    *,
    strict: bool,
    init_optimizer: bool,
) -> dict[str, dict[str, Any]]:
    """Check that a new run can start from the state of a checkpoint. No entry is loaded.

    Args:
        model: model of the run, which may be on the meta device; None: the weights are not checked.
        optimizer: optimizer of the run; None if ``init_optimizer`` is False or ``model`` is None.
        saved: state of the checkpoint.
        strict: whether all weights, and all parameters of the optimizer, must match.
        init_optimizer: whether the state of the optimizer is loaded.

    Returns:
        The saved states that the optimizer can load, by the name of the parameter.

    Raises:
        CheckpointError: if the weights or the state of the optimizer cannot be loaded.
    """
    if model is not None and strict:
        try:
            check_weights(model, saved["model"])
        except CheckpointError as error:
            raise CheckpointError(f"{str(error).rstrip('.')}; {_NOT_STRICT} loads the weights that fit.") from error
    found = saved["model"] if model is None or strict else fitting_weights(model, saved["model"])
    if not init_optimizer:
        return {}
    states = _saved_states(saved)
    if model is None or optimizer is None:
        return states
    _check_class(optimizer, saved)
    if strict:
        _check_groups(parameter_names(model, optimizer), saved["parameters"])
    # The state of a parameter has the dtype of the parameter, so it is loaded only if the dtype has not changed.
    fitting = {
        name for name, each in plain_parameters(model).items() if name in found and each.dtype == found[name].dtype
    }
    return {name: each for name, each in states.items() if name in fitting}


def _saved_states(saved: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the state of each parameter in the saved optimizer, by the name of the parameter."""
    if not isinstance(saved.get("optimizer"), dict):
        raise CheckpointError(f"contains no state of an optimizer; {_WEIGHTS_ONLY}.")
    with loading("optimizer", "its state is malformed", f"; {_WEIGHTS_ONLY}"):
        states, groups = saved["optimizer"]["state"], saved["optimizer"]["param_groups"]
        indices = [index for group in groups for index in group["params"]]
        names = [name for group in saved["parameters"] for name in group]
        found = {name: states[index] for name, index in zip(names, indices, strict=True) if index in states}
        if not all(isinstance(name, str) and isinstance(found.get(name, {}), dict) for name in names):
            raise TypeError("expected a name and a mapping for each parameter")
    return found


def _check_class(optimizer: Optimizer, saved: Mapping[str, Any]) -> None:
    settings, here = saved.get("settings"), type(optimizer).__name__
    there = settings.get("optimizer") if isinstance(settings, Mapping) else None
    if there != here:
        shown = on_one_line(str(there), 80)
        raise CheckpointError(f"the optimizer was {shown}, and is {here} in this run; {_WEIGHTS_ONLY}.")


def _check_groups(own: list[list[str]], saved: list[list[str]]) -> None:
    """Refuse a checkpoint whose parameter groups differ from the groups of this run."""
    if own == saved:
        return
    here, there = ({name for group in groups for name in group} for groups in (own, saved))
    differences = [
        f"{title} {_names(sorted(names))}"
        for title, names in (("missing", here - there), ("unexpected", there - here))
        if names
    ]
    sizes = f"{len(saved)} in the checkpoint and {len(own)} in this run"
    found = ", ".join(differences) or f"{sizes}, or the same parameters in another order"
    problem = f"the optimizer had other parameter groups ({found})"
    raise CheckpointError(f"{problem}; {_NOT_STRICT} loads the states of parameters with the same name.")


def _load_states(model: nn.Module, optimizer: Optimizer, states: Mapping[str, Any]) -> list[str]:
    """Load the states into the optimizer. Return a line that lists the parameters without a state, if there are any."""
    own = optimizer.state_dict()
    indices = [index for group in own["param_groups"] for index in group["params"]]
    names = [name for group in parameter_names(model, optimizer) for name in group]
    pairs = zip(names, indices, strict=True)
    with loading("optimizer", "its state cannot be loaded", f"; {_WEIGHTS_ONLY}"):
        load_optimizer(optimizer, {**own, "state": {index: states[name] for name, index in pairs if name in states}})
    others = [name for name in names if name not in states]
    return [f"without a state in the optimizer: {_names(others)}"] if others and states else []


def _names(names: list[str]) -> str:
    more = f" and {len(names) - _MAX_SHOWN} more" if len(names) > _MAX_SHOWN else ""
    return ", ".join(on_one_line(name, 80) for name in names[:_MAX_SHOWN]) + more
