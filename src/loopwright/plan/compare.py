"""Two plans side by side: whether a run that is resumed is still the run that was begun."""

from __future__ import annotations

from collections.abc import Mapping

_LENGTHS = ("loop.num_steps", "loop.max_steps", "loop.num_epochs", "loop.steps_per_epoch")
# What these come to is compared instead: stop_step, eval_every and validate.<name>.
_UNDERSTOOD = (*_LENGTHS, "loop.eval_frequency", "loop.eval_steps", "stop_step", "eval_every")


def plan_differences(old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    """What keeps a run begun with the settings ``old`` from going on with ``new``, a line each.

    Args:
        old: `Plan.settings` of the plan that the run was begun with.
        new: that of the plan it is resumed with, from the same start.

    Returns:
        Lines such as ``loop.grad_accum_steps: 2 -> 4``; none where ``new`` is the same plan or only ends later.
        Settings that came to the same (a frequency of 0.1 or of 100 in 1000 steps) do not differ.
    """
    lines = [_line(name, old, new) for name in _names(old, new) if name not in _UNDERSTOOD and _differs(name, old, new)]
    if any(line.startswith("validate.") for line in lines) and _differs("loop.eval_steps", old, new):
        lines.append(_line("loop.eval_steps", old, new))
    if _differs("eval_every", old, new) and _differs("loop.eval_frequency", old, new):
        lines.append(_line("loop.eval_frequency", old, new))
    if _order(old) != _order(new) and sorted(_order(old)) == sorted(_order(new)):
        lines.append(f"order of validation: {', '.join(_order(old))} -> {', '.join(_order(new))}")
    if _stop(new) < _stop(old):
        lines.append(f"an earlier end, {_end_line(old, new)}")
    return lines


def plan_extensions(old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    """What may change when a run is resumed, and is said: a later end, and the cadence that moves with it."""
    lines = []
    if _stop(new) > _stop(old):
        lines.append(f"a later end, {_end_line(old, new)}")
    if _differs("eval_every", old, new) and not _differs("loop.eval_frequency", old, new):
        frequency = old.get("loop.eval_frequency")
        if isinstance(old.get("eval_every"), int) and isinstance(new.get("eval_every"), int):
            lines.append(f"eval_frequency={frequency}: every {old['eval_every']} -> {new['eval_every']} steps")
    return lines


def _end_line(old: Mapping[str, object], new: Mapping[str, object]) -> str:
    causes = [_line(name, old, new) for name in _LENGTHS if _differs(name, old, new)]
    return f"global_step {_stop(old)} -> {_stop(new)}" + (f" ({', '.join(causes)})" if causes else "")


def _names(old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    return list(dict.fromkeys((*old, *new)))


def _differs(name: str, old: Mapping[str, object], new: Mapping[str, object]) -> bool:
    return old.get(name) != new.get(name)


def _line(name: str, old: Mapping[str, object], new: Mapping[str, object]) -> str:
    return f"{name}: {_show(name, old)} -> {_show(name, new)}"


def _show(name: str, settings: Mapping[str, object]) -> str:
    value = settings.get(name)
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _order(settings: Mapping[str, object]) -> list[str]:
    return [name for name in settings if name.startswith(("validate.", "downstream."))]


def _stop(settings: Mapping[str, object]) -> int:
    stop = settings.get("stop_step")
    return stop if isinstance(stop, int) else 0
