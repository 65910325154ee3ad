"""Functions that compare the saved plan of a run with the plan of a resume."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from loopwright.errors import on_one_line

_MAX_SHOWN = 80  # maximum number of characters of a name or value in a message

_LENGTHS = ("loop.num_steps", "loop.max_steps", "loop.num_epochs", "loop.steps_per_epoch")
# Settings that `plan_differences` does not compare by name. It compares their effects: the last step, the steps between
# validations, and the batches of each validation.
_UNDERSTOOD = (*_LENGTHS, "loop.eval_frequency", "loop.eval_steps", "stop_step", "eval_every")
# Settings that a resume may change, because they determine only which steps have a checkpoint.
_MAY_CHANGE = ("checkpoint.at_validations",)

# Settings that plans of older versions lack, with the values that correspond to the behaviour of the older versions.
ADDED_SETTINGS: Mapping[str, object] = MappingProxyType(
    {"checkpoint.at_validations": False, "loop.eval_at_start": False}
)


def plan_differences(old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    """List the differences between two plans that prevent a resume.

    Args:
        old: `Plan.settings` of the saved run.
        new: `Plan.settings` of the resume, computed for the start step of the saved run.

    Returns:
        Lines such as ``loop.grad_accum_steps: 2 -> 4``, without the differences that `plan_extensions` lists. An empty
        list allows the resume. Settings with equal effects are not listed. For example, in a fit of 1000 steps, the
        values 0.1 and 100 of ``eval_frequency`` have equal effects.
    """
    names = [name for name in dict.fromkeys((*old, *new)) if name not in (*_UNDERSTOOD, *_MAY_CHANGE)]
    lines = [_line(name, old, new) for name in names if _differs(name, old, new)]
    if any(line.startswith("validate.") for line in lines) and _differs("loop.eval_steps", old, new):
        lines.append(_line("loop.eval_steps", old, new))
    if _differs("eval_every", old, new) and _differs("loop.eval_frequency", old, new):
        lines.append(_line("loop.eval_frequency", old, new))
    elif isinstance(new.get("loop.eval_frequency"), str):  # a later end does not change the steps of an epoch
        lines += _moved_validations(old, new)
    if _order(old) != _order(new) and sorted(_order(old)) == sorted(_order(new)):
        lines.append(f"order of validation: {', '.join(_order(old))} -> {', '.join(_order(new))}")
    if _stop(new) < _stop(old):
        lines.append(f"an earlier end, {_end_line(old, new)}")
    return lines


def plan_extensions(old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    """List the differences between two plans that a resume allows.

    A resume allows a later end, the validation interval that results from the later end, and another value of
    ``checkpoint.at_validations``, which does not change results.
    """
    lines = [_line(name, old, new) for name in _MAY_CHANGE if _differs(name, old, new)]
    if _stop(new) > _stop(old):
        lines.append(f"a later end, {_end_line(old, new)}")
    if not isinstance(new.get("loop.eval_frequency"), str):
        lines += _moved_validations(old, new)
    return lines


def setting_change(name: str, old: object, new: object) -> str:
    """Format ``name: old -> new`` in one line. Long names and values are shortened."""
    return f"{on_one_line(name, _MAX_SHOWN)}: {_text(old)} -> {_text(new)}"


def _moved_validations(old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    """Return a line if ``eval_frequency`` is unchanged but gives another number of steps; otherwise an empty list."""
    before, now, frequency = old.get("eval_every"), new.get("eval_every"), old.get("loop.eval_frequency")
    if before == now or not isinstance(before, int) or not isinstance(now, int):
        return []
    is_same = not _differs("loop.eval_frequency", old, new)
    return [f"eval_frequency={frequency}: every {before} -> {now} steps"] if is_same else []


def _end_line(old: Mapping[str, object], new: Mapping[str, object]) -> str:
    causes = [_line(name, old, new) for name in _LENGTHS if _differs(name, old, new)]
    return f"global_step {_stop(old)} -> {_stop(new)}" + (f" ({', '.join(causes)})" if causes else "")


def _differs(name: str, old: Mapping[str, object], new: Mapping[str, object]) -> bool:
    return old.get(name) != new.get(name)


def _line(name: str, old: Mapping[str, object], new: Mapping[str, object]) -> str:
    return setting_change(name, old.get(name), new.get(name))


def _text(value: object) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else on_one_line(str(value), _MAX_SHOWN)


def _order(settings: Mapping[str, object]) -> list[str]:
    return [name for name in settings if name.startswith(("validate.", "downstream."))]


def _stop(settings: Mapping[str, object]) -> int:
    stop = settings.get("stop_step")
    return stop if isinstance(stop, int) else 0
