"""`check_fit_state`: whether what was saved is the state of a run like this one, before anything of it is used."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeGuard

from torch import Tensor

from loopwright.engine.parts import Parts
from loopwright.engine.recorded_settings import run_settings
from loopwright.engine.state import stateful_callbacks, stateful_loggers
from loopwright.errors import CheckpointError, did_you_mean, on_one_line

_log = logging.getLogger("loopwright")

STATE_KEYS = (
    "optimizer",
    "schedulers",
    "monitored",
    "position",
    "data",
    "settings",
    "plan",
    "streams",
    "metrics",
    "callbacks",
    "loggers",
)
_POSITION = ("global_step", "pass_index", "micro_batch_index", "num_validated")

_MAX_SHOWN = 5
_MAX_NAME = 80  # characters of a name that are shown


def check_fit_state(parts: Parts, saved: Mapping[str, Any], step: int) -> None:
    """Refuse a state that does not belong to these parts.

    Entries that optimizer, schedulers or loggers of this run do not know, of another version, are said in one line.

    Args:
        parts: of this run.
        saved: what `gather_state` returned.
        step: that the checkpoint is said to be of.

    Raises:
        CheckpointError: naming what is missing or does not fit.
    """
    missing = [key for key in STATE_KEYS if key not in saved]
    if missing:
        raise CheckpointError(
            f"holds no {', '.join(missing)}; expected the checkpoint of a fit (init_from takes weights alone)."
        )
    fault = (
        _position_fault(parts, saved["position"], step)
        or _closed_fault(parts.streams.state_dict(), saved["streams"], "streams")
        or _closed_fault(dict.fromkeys(parts.log.state_dict()), saved["metrics"], "metrics")
        or _closed_fault(dict.fromkeys(run_settings(parts)), saved["settings"], "settings")
        or _data_fault(parts, saved["data"])
        or _schedulers_fault(parts, saved)
        or _optimizer_fault(parts, saved["optimizer"])
        or _callbacks_fault(parts, saved["callbacks"])
        or _states_fault("loggers", saved["loggers"])
    )
    if fault is not None:
        raise CheckpointError(fault if fault.endswith("?") else f"{fault}.")
    if (parts.streams.state_dict()["device"] is None) != (saved["streams"]["device"] is None):
        _log.warning("Step %d: streams.device: saved with an accelerator or resumed with one, but not both.", step)
    unknown = [*_unknown_entries(parts, saved)]
    if unknown:
        _log.warning("Step %d: entries that this run does not know: %s.", step, names_line(unknown))


def is_count(value: object) -> TypeGuard[int]:
    """Whether something that was read is a whole number, 0 or more, and no larger than any count can be."""
    return type(value) is int and 0 <= value < 1 << 63


def names_line(names: Iterable[object]) -> str:
    """The first few names, and how many more there are."""
    shown = [on_one_line(str(name), _MAX_NAME) for name in names]
    more = f" and {len(shown) - _MAX_SHOWN} more" if len(shown) > _MAX_SHOWN else ""
    return ", ".join(shown[:_MAX_SHOWN]) + more


def form_fault(own: Any, given: Any, path: str) -> str | None:
    """Where ``given`` departs from the form of ``own``, and how; None where it does not.

    Every name that ``own`` has must be there, lists must be as long, tensors of the same shape and type, and numbers
    be numbers: finite ones where ``own`` is finite. Further names are the caller's affair. Where ``own`` is None,
    ``given`` may be anything; where ``given`` is, ``own`` may be anything but a number or a text.
    """
    if own is None or (given is None and _kind(own) not in ("a number", "a str")):
        return None
    if isinstance(own, Mapping) and isinstance(given, Mapping):
        missing = [name for name in own if name not in given]
        if missing:
            return f"{path}: lacks {names_line(missing)}"
        return _first_fault((own[name], given[name], f"{path}.{name}") for name in own)
    if isinstance(own, list | tuple) and isinstance(given, list | tuple):
        if len(own) != len(given):
            return f"{path}: {len(given)} entries; expected {len(own)}"
        return _first_fault((*pair, f"{path}[{i}]") for i, pair in enumerate(zip(own, given, strict=True)))
    if _kind(own) != _kind(given):
        return f"{path}: {_kind(given)}; expected {_kind(own)}"
    if isinstance(given, float) and math.isfinite(own) and not math.isfinite(given):
        return f"{path}: {given}; expected a finite number"
    return None


def _first_fault(triples: Iterable[tuple[Any, Any, str]]) -> str | None:
    return next((fault for triple in triples if (fault := form_fault(*triple)) is not None), None)


def _kind(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of {'x'.join(map(str, value.shape)) or 'no dimensions'}, {value.dtype}"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "a number"
    if isinstance(value, Mapping):
        return "a mapping"
    if value is None:
        return "null"
    return "a list" if isinstance(value, list | tuple) else f"a {type(value).__name__}"


def _closed_fault(own: Mapping[str, Any], saved: Any, path: str) -> str | None:
    """As `form_fault`, of a mapping that has no other names than these."""
    if not isinstance(saved, Mapping):
        return f"{path}: expected a mapping"
    more = [name for name in saved if name not in own]
    return form_fault(own, saved, path) or (f"{path}: holds {names_line(more)} besides" if more else None)


def _position_fault(parts: Parts, saved: Any, step: int) -> str | None:
    fault = _closed_fault(dict.fromkeys(_POSITION, 0), saved, "position")
    if fault is not None:
        return fault
    for name, value in saved.items():
        if not is_count(value):
            return f"position.{name}: {on_one_line(str(value), 80)}; expected a whole number, 0 or more"
    if saved["global_step"] != step:
        return f"position.global_step: {saved['global_step']}; the manifest says step {step}"
    assert parts.data is not None, "a fit that resumes has data"
    num_batches = parts.data.num_batches
    if num_batches is not None and saved["micro_batch_index"] >= num_batches:
        return f"position.micro_batch_index: {saved['micro_batch_index']}; expected one below {num_batches}, of a pass"
    return None


def _data_fault(parts: Parts, saved: Any) -> str | None:
    assert parts.data is not None, "a fit that resumes has data"
    if (parts.data.state_dict() is None) != (saved is None):
        whose = "the checkpoint holds none" if saved is None else "this run's keeps none"
        return f"data: state of the training dataloader; {whose}"
    return None if saved is None else _closed_fault({"dataloader": None, "streams": None}, saved, "data")


def _schedulers_fault(parts: Parts, saved: Mapping[str, Any]) -> str | None:
    for key, schedulers in (("schedulers", parts.schedulers), ("monitored", [each for each, _ in parts.monitored])):
        states = saved[key]
        if not isinstance(states, list) or not all(isinstance(state, dict) for state in states):
            return f"{key}: expected a list of states"
        if len(states) != len(schedulers):
            return f"{key}: holds the state of {len(states)}; this run has {len(schedulers)}"
        for index, (scheduler, state) in enumerate(zip(schedulers, states, strict=True)):
            # What is in its lists and mappings may have grown, and is its own affair.
            plain = {
                name: None if isinstance(value, list | tuple | Mapping) else value
                for name, value in scheduler.state_dict().items()
            }
            fault = form_fault(plain, state, f"{key}[{index}]")
            if fault is not None:
                return f"{fault}; this run's is {type(scheduler).__name__}"
    return None


def _optimizer_fault(parts: Parts, saved: Any) -> str | None:
    assert parts.optimizer is not None, "fit checks that there is an optimizer"
    own, kind = parts.optimizer.state_dict(), type(parts.optimizer).__name__
    if not isinstance(saved, dict) or not isinstance(saved.get("state"), dict):
        return "optimizer.state: expected the states of parameters by their numbers"
    groups = saved.get("param_groups")
    if not isinstance(groups, list) or not all(isinstance(each, dict) for each in groups):
        return "optimizer.param_groups: expected a list of groups"
    own_sizes, saved_sizes = [len(each["params"]) for each in own["param_groups"]], [*map(_num_params, groups)]
    if own_sizes != saved_sizes:
        return f"optimizer: has parameter groups of {saved_sizes} parameters; this run's has {own_sizes}"
    for index, (own_group, group) in enumerate(zip(own["param_groups"], groups, strict=True)):
        missing = sorted(own_group.keys() - group.keys())
        if missing:
            names = names_line(missing)
            return f"optimizer: was saved by another kind: group {index} lacks {names}; this run's is {kind}"
        fault = form_fault(own_group, group, f"optimizer.param_groups[{index}]")
        if fault is None and own_group["params"] != group["params"]:
            fault = f"optimizer.param_groups[{index}].params: expected the numbers of its parameters in order"
        if fault is not None:
            return fault
    for index, state in saved["state"].items():
        if type(index) is not int or not 0 <= index < sum(own_sizes) or not isinstance(state, dict):
            return f"optimizer.state: {names_line([index])}: expected the number of one of {sum(own_sizes)} parameters"
    return form_fault(dict.fromkeys(own), saved, "optimizer")


def _num_params(group: Mapping[str, Any]) -> int:
    params = group.get("params")
    return len(params) if isinstance(params, list) else 0


def _callbacks_fault(parts: Parts, saved: Any) -> str | None:
    if not isinstance(saved, dict):
        return "callbacks: expected a mapping of names to states"
    own_names, saved_names = set(stateful_callbacks(parts.callbacks)), set(map(str, saved))
    for name in sorted(own_names ^ saved_names):
        whose = "this run has none" if name in saved_names else "the checkpoint has none"
        hint = did_you_mean(name, saved_names if name in own_names else own_names)
        return f"callbacks.{names_line([name])}: state of a callback of this name; {whose}{'.' if hint else ''}{hint}"
    return _states_fault("callbacks", saved)


def _states_fault(path: str, saved: Any) -> str | None:
    if not isinstance(saved, dict):
        return f"{path}: expected a mapping of names to states"
    for name, state in saved.items():
        if not isinstance(state, dict):
            return f"{path}.{names_line([name])}: expected a mapping"
    return None


def _unknown_entries(parts: Parts, saved: Mapping[str, Any]) -> Iterator[str]:
    assert parts.optimizer is not None, "fit checks that there is an optimizer"
    own, given = parts.optimizer.state_dict(), saved["optimizer"]
    loggers = {name: each for name, each in stateful_loggers(parts.callbacks).items() if name in saved["loggers"]}
    pairs = [
        ("optimizer", own, given),
        *_numbered("optimizer.param_groups", own["param_groups"], given["param_groups"]),
        *_numbered("schedulers", [each.state_dict() for each in parts.schedulers], saved["schedulers"]),
        *_numbered("monitored", [each.state_dict() for each, _ in parts.monitored], saved["monitored"]),
        *((f"loggers.{name}", each.state_dict(), saved["loggers"][name]) for name, each in loggers.items()),
    ]
    for path, mine, theirs in pairs:
        yield from (f"{path}.{name}" for name in theirs if name not in mine)


def _numbered(path: str, own: list[Any], saved: list[Any]) -> list[tuple[str, Any, Any]]:
    return [(f"{path}[{i}]", *pair) for i, pair in enumerate(zip(own, saved, strict=True))]
