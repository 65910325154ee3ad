"""`check_fit_state` and `check_form`, which compare the state in a checkpoint with this run before the run uses it.

The files of a checkpoint are verified by SHA-256 before they are read. So the state is wrong only if the checkpoint
belongs to another run or version, or if the files were changed together with the manifest. A recursive comparison finds
the first entry that differs. A template has the structure of a state, and each of its values describes the values that
are accepted at the same place in the state.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from types import UnionType
from typing import Any

import numpy
from torch import Tensor

from loopwright.engine.parts import Parts
from loopwright.engine.state import gather_state
from loopwright.errors import CheckpointError, nearest, on_one_line

_log = logging.getLogger("loopwright")

COUNT = range(1 << 63)
NUM_PARTS = range(1, 1 << 31)  # of a micro-batch that is computed in parts
SCALAR = bool | int | float | str | None
BUFFER = Tensor | None
_WORDS: Mapping[object, str] = {dict: "a mapping", SCALAR: "a number, string, bool or null", BUFFER: "a tensor or null"}

# A logger may be new in this run. A parameter has no state in the optimizer before its first gradient. An older
# checkpoint lacks the device, the precision, the mode of the monitored metric, and the sums of the training metrics.
_MAY_LACK = ("loggers", "optimizer.state", "metrics", "settings.device", "settings.precision")
# The saved run may not have imported NumPy or used an accelerator. `random.gauss` caches a number only after every
# second call. A training dataloader may have no state.
_MAY_BE_NULL = ("streams.numpy", "streams.device", "streams.python[2]", "data")

_MAX_SHOWN = 5
_MAX_CHARACTERS = 200  # maximum length of a path or value in a message
_MAX_COMPARED = 2000  # maximum number of names that are compared to find the nearest name, which limits the time


def check_fit_state(parts: Parts, parameters: list[list[str]], saved: Mapping[str, Any], step: int) -> None:
    """Refuse the state of a checkpoint if this run cannot resume from it.

    Entries of an optimizer, a scheduler or a logger that only the checkpoint has are listed in one warning.

    Args:
        parts: model, optimizer, schedulers and other objects of this run; see `Parts`.
        parameters: for each parameter group of the optimizer, the names of its parameters.
        saved: state of the checkpoint.
        step: step of the checkpoint.

    Raises:
        CheckpointError: if an entry is missing or is not accepted. The message names the first such entry.
    """
    form = _form_of(parts, parameters, step)
    if "splitting" in saved:
        form["splitting"] = {"num_parts": NUM_PARTS}
    unknown = check_form(form, saved)
    if (form["data"] is None) != (saved["data"] is None):
        which = "this run" if saved["data"] is None else "the saved run"
        raise _refusal("data", f"only the training dataloader of {which} has a state")
    if (parts.streams.state_dict()["device"] is None) != (saved["streams"]["device"] is None):
        _log.warning(
            "The checkpoint of step %d was saved with an accelerator and is resumed without one, or was saved "
            "without one and is resumed with one; the random state of the accelerator is not restored.",
            step,
        )
    if unknown:
        names = ", ".join(on_one_line(path, _MAX_CHARACTERS) for path in unknown[:_MAX_SHOWN])
        more = f" and {len(unknown) - _MAX_SHOWN} more" if len(unknown) > _MAX_SHOWN else ""
        _log.warning("The checkpoint of step %d has entries that this run does not have: %s%s.", step, names, more)


def check_form(form: Mapping[str, Any], saved: Mapping[str, Any]) -> list[str]:
    """Compare a state with a template (``form``), and refuse the state at the first entry that does not match.

    Top-level entries that the template lacks are not checked. A value in the template describes the accepted values:

    - a finite number accepts finite numbers; inf and NaN accept all numbers; integers must have at most 64 bits;
    - a string accepts strings; a bool accepts bools and None; a tensor accepts tensors of equal shape and dtype;
    - a NumPy scalar accepts numbers or bools of any type; a NumPy array accepts arrays of equal shape and dtype;
    - a type accepts its instances; a range or frozenset accepts its members; None accepts any value;
    - a mapping accepts mappings with the same names; its value at the key ``*`` accepts the values of other names.

    Args:
        form: template of the state.
        saved: state of a checkpoint.

    Returns:
        The paths of the names that only the state has, which a ``*`` in the template accepts.

    Raises:
        CheckpointError: if an entry is missing or is not accepted. The message contains the path of the first such
            entry, its value and the accepted values.
    """
    missing = [name for name in form if name not in saved]
    if missing:
        names = ", ".join(missing)
        raise CheckpointError(f"holds no {names}; expected the checkpoint of a fit; init_from loads only the weights.")
    return [path for name in form for path in _compare(form[name], saved[name], name)]


def position_form(step: int, num_batches: int | None = None) -> dict[str, range]:
    """Return the template of the entry ``position``: the step, pass and micro-batch at which a run is.

    ``global_step`` must equal ``step``; ``micro_batch_index`` must be below ``num_batches``, if that number is known.
    """
    return {
        "global_step": range(step, step + 1),
        "pass_index": COUNT,
        "micro_batch_index": COUNT if num_batches is None else range(num_batches),
        "num_validated": COUNT,
    }


def _form_of(parts: Parts, parameters: list[list[str]], step: int) -> dict[str, Any]:
    """Return the template of the whole state.

    The template is the state of this run, except that entries that grow during a run accept any size.
    """
    assert parts.data is not None, "a fit that resumes has data"
    own = gather_state(parts, None)
    groups = own["optimizer"]["param_groups"]
    indices = [index for group in groups for index in group["params"]]
    return {
        "position": position_form(step, parts.data.num_batches),
        "settings": dict.fromkeys(own["settings"], SCALAR),
        "data": None if own["data"] is None else {"dataloader": None, "streams": None},
        **({"scaling": own["scaling"]} if "scaling" in own else {}),
        # Another version of an optimizer, a scheduler or a logger may have saved more entries.
        "optimizer": dict.fromkeys(["param_groups", *own["optimizer"], "*"])
        | {
            "param_groups": [
                {**group, "params": [range(i, i + 1) for i in group["params"]], "*": None} for group in groups
            ],
            "state": dict.fromkeys(indices, dict),
        },
        "schedulers": [_scheduler_form(state) for state in own["schedulers"]],
        "monitored": [_scheduler_form(state) for state in own["monitored"]],
        "parameters": [[frozenset({name}) for name in names] for names in parameters],
        "callbacks": dict.fromkeys(own["callbacks"], dict),
        "loggers": {"*": None} | {name: dict.fromkeys([*state, "*"]) for name, state in own["loggers"].items()},
        "streams": own["streams"] | {"seed": COUNT},
        "metrics": dict.fromkeys(own["metrics"]),
        "buffers": dict,
    }


def _scheduler_form(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the template of a scheduler. Its lists and mappings accept any value, as they may grow.

    Only ``base_lrs`` must have one rate for each parameter group. A group without a rate would keep its ``lr``.
    """
    free = [name for name, each in state.items() if isinstance(each, list | tuple | Mapping) and name != "base_lrs"]
    return {**state, **dict.fromkeys([*free, "*"])}


def _compare(form: Any, saved: Any, path: str) -> list[str]:
    """Compare a saved state with its template. Return the paths of the names that only the saved state has."""
    if form is None or (saved is None and (isinstance(form, bool) or path in _MAY_BE_NULL)):
        return []
    unknown: list[str] = []
    if isinstance(form, Mapping) and isinstance(saved, Mapping):
        unknown = [str(name) for name in saved if name not in form]
        needed = [name for name in form if name != "*" and not f"{path}.{name}".startswith(_MAY_LACK)]
        missing = [str(name) for name in needed if name not in saved]
        if missing:
            near = nearest(missing[0], [name[:_MAX_CHARACTERS] for name in unknown[:_MAX_COMPARED]])
            hint = f" (nearest: {on_one_line(near)})" if near else ""
            raise _refusal(f"{path}.{missing[0]}", f"missing in the checkpoint{hint}")
        refused = [name for name in saved if name not in form and not ("*" in form and isinstance(name, str))]
        if refused:
            raise _refusal(f"{path}.{refused[0]}", "not in this run")
        names = [name for name in {**form, **saved} if name in saved]
        entries = [(form.get(name, form.get("*")), saved[name], f"{path}.{name}") for name in names]
    elif isinstance(form, list | tuple) and isinstance(saved, list | tuple) and len(form) == len(saved):
        entries = [(*pair, f"{path}[{index}]") for index, pair in enumerate(zip(form, saved, strict=True))]
    elif _accepts(form, saved):
        return []
    else:
        given = on_one_line(repr(saved), _MAX_CHARACTERS) if isinstance(saved, int | float | str) else _kind(saved)
        raise _refusal(path, f"{given}, expected {_kind(form)}")
    return [*(f"{path}.{name}" for name in unknown), *(each for entry in entries for each in _compare(*entry))]


def _accepts(form: Any, saved: Any) -> bool:
    """Return whether the value ``form`` of a template, which is not a container, accepts the value ``saved``."""
    if isinstance(form, range):
        return type(saved) is int and saved in form
    if isinstance(form, frozenset):
        return isinstance(saved, str) and saved in form
    if isinstance(form, type | UnionType):
        return isinstance(saved, form)
    if isinstance(saved, int) and abs(saved) >> 64:
        return False  # torch and NumPy have no integers of more than 64 bits
    is_finite = not isinstance(saved, float | numpy.floating) or math.isfinite(saved)
    return _kind(form) == _kind(saved) and (is_finite or not math.isfinite(form))


def _kind(value: Any) -> str:
    """Describe the type and size of a value, or the values that a value of a template accepts, for a message."""
    if isinstance(value, range):
        if value.stop == COUNT.stop:
            return f"a whole number, {value.start} or more"
        last = value.stop - 1
        return str(last) if value.start == last else f"a whole number from {value.start} to {last}"
    if isinstance(value, frozenset):
        return ", ".join(value)
    if isinstance(value, type | UnionType):
        return _WORDS[value]
    if isinstance(value, Tensor | numpy.ndarray):
        kind = "a tensor" if isinstance(value, Tensor) else "an array"
        return f"{kind} of {'x'.join(map(str, value.shape)) or 'no dimensions'}, {value.dtype}"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if value is None or isinstance(value, bool | numpy.bool_):
        return "null" if value is None else "true or false"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, numpy.complexfloating):
        return "a complex number"
    is_number = isinstance(value, int | float | numpy.number)
    return "a number (finite, below 2**64)" if is_number else "a string"


def _refusal(path: str, problem: str) -> CheckpointError:
    remedy = "resuming needs a checkpoint of the same run; init_from loads only the weights"
    return CheckpointError(f"{on_one_line(path, _MAX_CHARACTERS)}: {problem}; {remedy}.")
