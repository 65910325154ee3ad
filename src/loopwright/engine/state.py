"""`gather_state` and `apply_state`: collect the state of a run for a checkpoint, and restore it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from loopwright.engine.parts import Parts
from loopwright.engine.recorded_settings import run_settings
from loopwright.errors import CheckpointError, SettingError, on_one_line
from loopwright.hooks import Callback, Logger, implements

_log = logging.getLogger("loopwright")

# Entries that OneCycleLR computes from its number of steps. A resume does not load these entries, because the resumed
# run may have another number of steps.
_MADE_OF_TOTAL = ("total_steps", "_schedule_phases")


def gather_state(parts: Parts, plan_settings: Mapping[str, object] | None) -> dict[str, Any]:
    """Return the state that a resume needs besides the weights.

    Args:
        parts: model, device, hooks and other objects of this run; see `Parts`.
        plan_settings: plan settings of the current fit; None before the first fit.
    """
    state = parts.state
    optimizer = {} if parts.optimizer is None else {"optimizer": parts.optimizer.state_dict()}
    scaling = {} if parts.scaling is None else {"scaling": parts.scaling.state_dict()}
    splitting = {"splitting": {"num_parts": state.num_parts}} if parts.strategy.splits_on_oom else {}
    return {
        **optimizer,
        **scaling,
        **splitting,
        "schedulers": [scheduler.state_dict() for scheduler in parts.schedulers],
        "monitored": [scheduler.state_dict() for scheduler, _ in parts.monitored],
        "position": {
            "global_step": state.global_step,
            "pass_index": state.pass_index,
            "micro_batch_index": state.micro_batch_index,
            "num_validated": state.validated[1] if state.validated[0] == state.global_step else 0,
        },
        "data": None if parts.data is None else parts.data.state_dict(),
        "settings": run_settings(parts),
        "plan": None if plan_settings is None else dict(plan_settings),
        "streams": parts.streams.state_dict(),
        "metrics": parts.log.state_dict(),
        "callbacks": {name: cb.state_dict() for name, cb in stateful_callbacks(parts.callbacks).items()},
        "loggers": {name: logger.state_dict() for name, logger in stateful_loggers(parts.callbacks).items()},
    }


def apply_state(parts: Parts, saved: Mapping[str, Any]) -> None:
    """Restore a state that `check_fit_state` has accepted. The weights must be loaded before this call.

    Raises:
        CheckpointError: if an entry cannot be loaded. The message names the entry.
    """
    assert parts.optimizer is not None, "fit checks that there is an optimizer"
    with loading("optimizer"):
        load_optimizer(parts.optimizer, saved["optimizer"])
    if parts.scaling is not None:
        with loading("scaling"):
            parts.scaling.load_state_dict(saved["scaling"])
    for index, (scheduler, state) in enumerate(zip(parts.schedulers, saved["schedulers"], strict=True)):
        made = scheduler.state_dict()
        of_total = {key: made[key] for key in _MADE_OF_TOTAL if key in made}
        with loading(f"schedulers[{index}]"):
            scheduler.load_state_dict({**state, **of_total})
    for index, ((scheduler, _), state) in enumerate(zip(parts.monitored, saved["monitored"], strict=True)):
        with loading(f"monitored[{index}]"):
            scheduler.load_state_dict(state)
    if "splitting" in saved and parts.strategy.splits_on_oom:
        parts.state.num_parts = saved["splitting"]["num_parts"]
    position = saved["position"]
    parts.state.global_step = position["global_step"]
    parts.state.pass_index = position["pass_index"]
    parts.state.micro_batch_index = position["micro_batch_index"]
    parts.state.validated = (position["global_step"], position["num_validated"])
    if saved["data"] is not None and parts.data is not None:
        with loading("data"):
            parts.data.load_state_dict(saved["data"])
    with loading("metrics"):
        parts.log.load_state_dict(saved["metrics"])
    if "train_sums" not in saved["metrics"]:
        _log.warning(
            "The checkpoint of step %d is of an older version, which did not save the means of the training metrics: "
            "the first means that are logged begin after this step.",
            position["global_step"],
        )
    for name, callback in stateful_callbacks(parts.callbacks).items():
        with loading(f"callbacks.{name}"):
            callback.load_state_dict(saved["callbacks"][name])
    for name, logger in stateful_loggers(parts.callbacks).items():  # a logger without a saved state is accepted
        if name in saved["loggers"]:
            with loading(f"loggers.{name}"):
                logger.load_state_dict(saved["loggers"][name])
    with loading("streams"):
        parts.streams.load_state_dict(saved["streams"])


@contextmanager
def loading(name: str, problem: str = "cannot be loaded", remedy: str = "") -> Iterator[None]:
    """Convert an exception into a `CheckpointError` with the message ``name: problem (exception)remedy.``.

    ``load_state_dict`` raises such exceptions for a state that it cannot use.
    """
    try:
        yield
    except (CheckpointError, SettingError):
        raise
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RuntimeError, OSError) as error:
        text = on_one_line(f"{type(error).__name__}: {error}", 200)
        raise CheckpointError(f"{name}: {problem} ({text}){remedy}.") from error


def load_optimizer(optimizer: Optimizer, saved: dict[str, Any]) -> None:
    """Load the state of an optimizer, and keep the saved dtype of each tensor.

    ``Optimizer.load_state_dict`` casts the state of a parameter to the dtype of the parameter. NAdam keeps its
    ``mu_product`` in float32 for parameters of any dtype, and the cast would change the precision of ``mu_product``.
    """
    optimizer.load_state_dict(saved)
    indices = [index for group in saved["param_groups"] for index in group["params"]]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, parameter in zip(indices, parameters, strict=True):
        if index in saved["state"]:
            optimizer.state[parameter] = _as_saved(optimizer.state[parameter], saved["state"][index])


def _as_saved(loaded: Any, saved: Any) -> Any:
    if isinstance(loaded, Tensor) and isinstance(saved, Tensor):
        return loaded if loaded.dtype == saved.dtype else saved.to(loaded.device)
    if isinstance(loaded, dict) and isinstance(saved, dict):
        return {key: _as_saved(value, saved.get(key)) for key, value in loaded.items()}
    return loaded


def stateful_callbacks(callbacks: Sequence[tuple[str, Callback]]) -> dict[str, Callback]:
    """Return the callbacks that have a state, except loggers, by their names in a checkpoint.

    Raises:
        SettingError: if two callbacks with a state have the same name.
    """
    return _stateful([(name, callback) for name, callback in callbacks if not isinstance(callback, Logger)])


def stateful_loggers(callbacks: Sequence[tuple[str, Callback]]) -> dict[str, Callback]:
    """Return the loggers that have a state, by their names in a checkpoint.

    Raises:
        SettingError: if two loggers with a state have the same name.
    """
    return _stateful([(name, callback) for name, callback in callbacks if isinstance(callback, Logger)])


def _stateful(callbacks: Sequence[tuple[str, Callback]]) -> dict[str, Callback]:
    stateful: dict[str, Callback] = {}
    for name, callback in callbacks:
        if implements(callback, "state_dict"):
            if name in stateful:
                kind = "loggers" if isinstance(callback, Logger) else "callbacks"
                raise SettingError(
                    kind, f": two {kind} with a state have the name {name}; give a mapping from names to {kind}."
                )
            stateful[name] = callback
    return stateful
