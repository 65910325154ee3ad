"""The state of a run: gathered for a checkpoint, and put back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loopwright.engine.parts import Parts
from loopwright.engine.setup import stateful_callbacks, stateful_loggers
from loopwright.errors import CheckpointError, did_you_mean

STATE_KEYS = ("schedulers", "monitored", "position", "data", "plan", "streams", "metrics", "callbacks", "loggers")

# What OneCycleLR makes of the total that it is told; a run with a longer end tells another.
_MADE_OF_TOTAL = ("total_steps", "_schedule_phases")


def gather_state(parts: Parts, plan_settings: Mapping[str, object] | None) -> dict[str, Any]:
    """Everything but the weights that a run needs to go on.

    Args:
        parts: of this run.
        plan_settings: those of the plan of the present fit; None before the first.
    """
    state = parts.state
    optimizer = {} if parts.optimizer is None else {"optimizer": parts.optimizer.state_dict()}
    return {
        **optimizer,
        "schedulers": [scheduler.state_dict() for scheduler in parts.schedulers],
        "monitored": [scheduler.state_dict() for scheduler, _ in parts.monitored],
        "position": {
            "global_step": state.global_step,
            "pass_index": state.pass_index,
            "micro_batch_index": state.micro_batch_index,
            "num_validated": state.validated[1] if state.validated[0] == state.global_step else 0,
        },
        "data": None if parts.data is None else parts.data.state_dict(),
        "plan": None if plan_settings is None else dict(plan_settings),
        "streams": parts.streams.state_dict(),
        "metrics": parts.log.state_dict(),
        "callbacks": {name: cb.state_dict() for name, cb in stateful_callbacks(parts.callbacks).items()},
        "loggers": {name: logger.state_dict() for name, logger in stateful_loggers(parts.callbacks).items()},
    }


def check_fit_state(parts: Parts, saved: Mapping[str, Any], path: object) -> None:
    """Refuse a state that does not belong to these parts, before anything of it is used.

    Raises:
        CheckpointError: naming what is missing or left over.
    """
    missing = [key for key in ("optimizer", *STATE_KEYS) if key not in saved]
    if missing:
        raise CheckpointError(
            f"{path}: holds no {', '.join(missing)}; expected the checkpoint of a fit (init_from takes weights alone)."
        )
    for key, own in (("schedulers", parts.schedulers), ("monitored", parts.monitored)):
        if len(saved[key]) != len(own):
            raise CheckpointError(f"{path}: {key}: holds the state of {len(saved[key])}; this run has {len(own)}.")
    assert parts.data is not None, "a fit that resumes has data"
    if (parts.data.state_dict() is None) != (saved["data"] is None):
        problem = "the checkpoint holds none" if saved["data"] is None else "this run's keeps none"
        raise CheckpointError(f"{path}: data: state of the training dataloader; {problem}.")
    _check_optimizer(parts, saved["optimizer"], path)
    own_names, saved_names = set(stateful_callbacks(parts.callbacks)), set(saved["callbacks"])
    for name in sorted(own_names ^ saved_names):
        whose = "this run has none" if name in saved_names else "the checkpoint has none"
        hint = did_you_mean(name, saved_names if name in own_names else own_names)
        raise CheckpointError(f"{path}: callbacks.{name}: state of a callback of this name; {whose}.{hint}")


def apply_state(parts: Parts, saved: Mapping[str, Any]) -> None:
    """Go on from what `gather_state` returned; the weights are loaded already."""
    assert parts.optimizer is not None, "fit checks that there is an optimizer"
    parts.optimizer.load_state_dict(saved["optimizer"])
    for scheduler, state in zip(parts.schedulers, saved["schedulers"], strict=True):
        made = scheduler.state_dict()
        scheduler.load_state_dict(
            {**state, **{key: made[key] for key in _MADE_OF_TOTAL if key in made and key in state}}
        )
    for (scheduler, _), state in zip(parts.monitored, saved["monitored"], strict=True):
        scheduler.load_state_dict(state)
    position = saved["position"]
    parts.state.global_step = position["global_step"]
    parts.state.pass_index = position["pass_index"]
    parts.state.micro_batch_index = position["micro_batch_index"]
    parts.state.validated = (position["global_step"], position["num_validated"])
    if saved["data"] is not None and parts.data is not None:
        parts.data.load_state_dict(saved["data"])
    parts.log.load_state_dict(saved["metrics"])
    for name, callback in stateful_callbacks(parts.callbacks).items():
        callback.load_state_dict(saved["callbacks"][name])
    for name, logger in stateful_loggers(parts.callbacks).items():  # what is recorded of a run does not change it
        if name in saved["loggers"]:
            logger.load_state_dict(saved["loggers"][name])
    parts.streams.load_state_dict(saved["streams"])


def _check_optimizer(parts: Parts, saved: Mapping[str, Any], path: object) -> None:
    assert parts.optimizer is not None, "fit checks that there is an optimizer"
    own_groups, saved_groups = parts.optimizer.param_groups, saved["param_groups"]
    own_sizes = [len(group["params"]) for group in own_groups]
    saved_sizes = [len(group["params"]) for group in saved_groups]
    if own_sizes != saved_sizes:
        problem = f"has parameter groups of {saved_sizes} parameters; this run's has {own_sizes}"
        raise CheckpointError(f"{path}: optimizer: {problem}.")
    for index, (own, given) in enumerate(zip(own_groups, saved_groups, strict=True)):
        missing = sorted(own.keys() - given.keys() - {"initial_lr"})
        if missing:
            problem = f"was saved by another kind: group {index} lacks {', '.join(missing)}"
            raise CheckpointError(f"{path}: optimizer: {problem}; this run's is {type(parts.optimizer).__name__}.")
