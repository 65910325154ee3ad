"""Functions that convert a plan to the text printed before a run, and to the JSON values of ``plan.json``."""

from __future__ import annotations

from collections.abc import Iterable

from loopwright.plan.plan import Plan
from loopwright.plan.plan_json import Block, Elided, Item, Repeat, encode, encoded_json
from loopwright.plan.validation import PlannedSet, mean_prefix

_LABEL_WIDTH = 15


def describe(
    plan: Plan,
    *,
    batch_size: int | None = None,
    num_samples: int | None = None,
    columns: str | None = None,
    learning_rate: str | None = None,
    repeats_first_batch: bool = False,
) -> str:
    """Describe the steps, samples, passes, validations, saves, notes and stages of ``plan`` in a text.

    Args:
        plan: plan of a whole fit, or of the remaining steps of a fit.
        batch_size: samples in a full micro-batch, summed over all ranks; None: unknown, and samples are not counted.
        num_samples: number of samples in a pass; None: unknown, and every micro-batch is counted as full.
        columns: one line about the columns of a table; None: no line.
        learning_rate: one line that describes the learning rate over the run; None: no line.
        repeats_first_batch: whether a callback replaces every micro-batch by the first micro-batch.

    Returns:
        Lines, without a newline at the end. The number of lines is bounded for a run of any length.
    """
    lines = _head(plan)
    if plan.total_steps:
        lines += _rows("micro-batches", [f"{plan.total_micro_batches:,}, {plan.grad_accum_steps:,} a step"])
        if repeats_first_batch:
            lines += _rows("samples", ["the first micro-batch, which replaces every other one"])
        elif batch_size is not None:
            lines += _rows("samples", [_samples(plan, batch_size, num_samples)])
        if columns is not None:
            lines += _rows("columns", [columns])
        if not repeats_first_batch:
            lines += _rows("passes", [_passes(plan)])
        lines += _rows("validates", _validations(plan))
        lines += _rows("saves", [_saves(plan)])
        if learning_rate is not None:
            lines += _rows("learning rate", [learning_rate])
        lines += _rows("left over", _short_steps(plan) if not repeats_first_batch else [])
    lines += _rows("note", plan.notes)
    stages = _item_lines(plan, encode(plan), indent="    ")
    return "\n".join([*lines, *(["  stages"] if stages else []), *stages])


def plan_json(plan: Plan) -> dict[str, object]:
    """Convert ``plan`` to JSON values: its settings, its counts, and its stages in the short form of `encode`."""
    return {
        "settings": dict(plan.settings()),
        "position": plan.position,
        "total_steps": plan.total_steps,
        "total_micro_batches": plan.total_micro_batches,
        "left_over": left_over(plan),
        "notes": list(plan.notes),
        "stages": encoded_json(encode(plan)),
    }


def left_over(plan: Plan) -> list[str]:
    """Return a line for each incomplete step, validation interval or pass of ``plan``.

    Only the last step of a pass, the interval before the last validation, and the last pass can be incomplete.
    """
    lines, length = _short_steps(plan), plan.num_micro_batches
    if length is not None and plan.total_steps:
        in_pass = _consumed(plan, plan.stop_step) % length
        if in_pass:
            lines.append(f"the last pass ends early: {length - in_pass:,} of its {length:,} micro-batches are not used")
    return lines


def _short_steps(plan: Plan) -> list[str]:
    """Return the lines of `left_over` without the line about the last pass, because `describe` lists the passes."""
    lines = []
    short = " or ".join(str(size) for size in _short_windows(plan))
    if short:
        per_step = plan.grad_accum_steps
        lines.append(f"the last step of a pass takes the {_plural(short, 'micro-batch')} left, not {per_step:,}")
    if plan.eval_every is not None and plan.fit_steps > plan.eval_every:
        stretch = plan.fit_steps % plan.eval_every
        if stretch:
            lines.append(f"the last validation follows {_count(stretch, 'step')}, not {plan.eval_every:,}")
    return lines


def _short_windows(plan: Plan) -> list[int]:
    """Return the sizes of the incomplete last steps of passes, in micro-batches. Each size is listed once."""
    in_first = plan.passes.steps_in_first_pass
    if plan.num_micro_batches is None or in_first is None:
        return []
    ends = _pass_ends(plan)
    sizes = set()
    if plan.position - plan.start_step < in_first and ends:
        sizes.add((plan.num_micro_batches - plan.passes.start_micro_batch) % plan.grad_accum_steps)
        ends -= 1
    if ends:
        sizes.add(plan.num_micro_batches % plan.grad_accum_steps)
    return sorted(sizes - {0})


def _head(plan: Plan) -> list[str]:
    if not plan.total_steps:
        lines = [f"Plan: nothing to train, global_step is {plan.position:,}"]
    else:
        steps = _count(plan.total_steps, "step")
        lines = [f"Plan: train {steps}, from global_step {plan.position:,} to {plan.stop_step:,}"]
    if plan.position > plan.start_step:
        begun = f"a fit of {_count(plan.fit_steps, 'step')} from global_step {plan.start_step:,}"
        lines += _rows("rest of", [begun])
    return lines


def _rows(label: str, values: Iterable[str]) -> list[str]:
    """Format one row per value, with the label in the first row."""
    labels = (label if index == 0 else "" for index, _ in enumerate(values))
    return [f"  {name:<{_LABEL_WIDTH}}{value}" for name, value in zip(labels, values, strict=False)]


def count_samples(plan: Plan, batch_size: int, num_samples: int | None) -> str:
    """Format the number of training samples: ``63,868``, or ``at most 64,000`` if ``num_samples`` is None."""
    total = plan.total_micro_batches * batch_size
    length = plan.num_micro_batches
    if num_samples is not None and length is not None:
        total -= _pass_ends(plan) * max(0, length * batch_size - num_samples)
    at_most = "" if num_samples is not None else "at most "
    return f"{at_most}{total:,}"


def _samples(plan: Plan, batch_size: int, num_samples: int | None) -> str:
    effective = batch_size * plan.grad_accum_steps
    total = count_samples(plan, batch_size, num_samples)
    return f"{total}, {batch_size:,} a micro-batch, {effective:,} a step (the effective batch)"


def _passes(plan: Plan) -> str:
    """Format the passes of ``plan``: the rest of the current pass, whole passes, and an incomplete last pass."""
    length = plan.num_micro_batches
    if length is None:
        return "unknown: the training dataloader has no length"
    steps = f" ({_count(plan.passes.steps_per_pass or 0, 'step')} in a whole pass)" if plan.grad_accum_steps > 1 else ""
    begin = _consumed(plan, plan.position) % length
    if begin + plan.total_micro_batches < length:
        start = f", beginning at micro-batch {begin:,}" if begin else ""
        return f"part of one: {plan.total_micro_batches:,} of {_count(length, 'micro-batch')}{start}{steps}"
    left = (length - begin) % length
    whole, rest = divmod(plan.total_micro_batches - left, length)
    if not left and not rest:
        return f"{whole:,}, each of {_count(length, 'micro-batch')}{steps}"
    parts = [f"the last {_count(left, 'micro-batch')} of the current one"] if left else []
    parts += [f"{whole:,} whole one{'s' if whole > 1 else ''} of {_count(length, 'micro-batch')}"] if whole else []
    parts += [f"{rest:,} of the {length:,} of the last"] if rest else []
    return f"{', then '.join(parts)}{steps}"


def _validations(plan: Plan) -> list[str]:
    is_at_start = plan.position == plan.start_step and plan.begins_with_validation
    if plan.eval_every is None and not is_at_start:
        is_off = not plan.loop_settings.eval_frequency
        return ["never: eval_frequency is off" if is_off else "never: there is no validation dataloader"]
    num_rounds = plan.num_validations(plan.stop_step) - plan.num_validations(plan.position)
    num_rounds += plan.begins_with_validation and not is_at_start
    if plan.eval_every is None:
        cadence = "once, before the first step"
    elif plan.eval_every >= plan.fit_steps:
        is_exact = plan.eval_every == plan.fit_steps
        cadence = "once, after the last step" + (_in_epochs(plan.loop_settings.eval_frequency) if is_exact else "")
    else:
        every = "step" if plan.eval_every == 1 else f"{plan.eval_every:,} steps"
        every += _in_epochs(plan.loop_settings.eval_frequency)
        and_last = " and after the last" if plan.fit_steps % plan.eval_every else ""
        cadence = f"after every {every}{and_last}, {_count(num_rounds, 'time')}"
    if is_at_start and plan.eval_every is not None:
        cadence = f"before the first step, then {cadence}"
    lines = [f"{cadence}: {', '.join(_batches(val) for val in plan.val)}" if plan.val else cadence]
    prefix = mean_prefix([val.name for val in plan.val])
    if prefix is not None:
        is_one = len(plan.val) == 1
        meaning = f"equals {plan.val[0].name}/<metric>" if is_one else f"is the mean over the {len(plan.val)} sets"
        lines.append(f"{prefix}/<metric> {meaning}")
    for name, every_n_vals in plan.downstream if plan.eval_every is not None else ():
        often = "each time" if every_n_vals == 1 else f"every {_ordinal(every_n_vals)} time and the last"
        lines.append(f"downstream {name}: {often}")
    return lines


def _saves(plan: Plan) -> str:
    parts = []
    if plan.save_at_validations and (plan.eval_every is not None or plan.begins_with_save):
        parts.append("before each validation")
    if plan.save_every is not None:
        every_step = plan.save_every == 1
        multiples = "after every step" if every_step else f"every {_ordinal(plan.save_every)} global_step"
        parts.append(multiples + _in_epochs(plan.save_every_text))
    if plan.save_last:
        parts.append("after the last step")
    *most, last = parts or ["never"]
    cadence = f"{', '.join(most)} and {last}" if most else last
    return f"{cadence}: {plan.num_saves:,} in all" if parts else cadence


def _in_epochs(interval: object) -> str:
    """Return text such as `` (2 epochs)`` if ``interval`` is in epochs; otherwise an empty string."""
    return f" ({interval})" if isinstance(interval, str) else ""


def _batches(val: PlannedSet) -> str:
    """Format the number of batches of a validation dataloader, such as ``val (50 of 79)``."""
    if val.length is None:
        return f"{val.name} ({val.num_batches:,})"
    of_all = f"{val.num_batches:,} of {val.length:,}" if val.num_batches < val.length else f"all {val.length:,}"
    return f"{val.name} ({of_all})"


def _item_lines(plan: Plan, items: Iterable[Item], indent: str) -> list[str]:
    lines = []
    for item in items:
        if isinstance(item, Repeat) and len(item.body) == 1 and isinstance(item.body[0], Block):
            lines.append(f"{indent}{item.times:,} x [ {_block(plan, item.body[0])} ]")
        elif isinstance(item, Repeat):
            lines += [f"{indent}{item.times:,} x [", *_item_lines(plan, item.body, indent + "  "), f"{indent}]"]
        elif isinstance(item, Elided):
            lines.append(f"{indent}... and so on from step {item.start:,} to {item.stop:,} ...")
        else:
            lines.append(indent + _block(plan, item))
    return lines


def _block(plan: Plan, block: Block) -> str:
    parts = [f"train {block.num_steps:,}"] if block.num_steps else []
    if block.is_saved:
        parts.append("save")
    if block.is_validated:
        parts += [f"validate {_batches(val)}" for val in plan.val]
        parts += [f"downstream {name}" for name in block.downstream]
    return ", ".join(parts)


def _consumed(plan: Plan, step: int) -> int:
    """Count the micro-batches up to ``step``, from the beginning of the pass in which the fit starts."""
    return plan.passes.start_micro_batch + plan.passes.num_consumed(step - plan.start_step)


def _pass_ends(plan: Plan) -> int:
    """Count the passes that this plan completes."""
    length = plan.num_micro_batches
    if length is None:
        return 0
    return _consumed(plan, plan.stop_step) // length - _consumed(plan, plan.position) // length


def _count(number: int, noun: str) -> str:
    return _plural(f"{number:,}", noun)


def _plural(number: str, noun: str) -> str:
    if number == "1":
        return f"1 {noun}"
    return f"{number} {noun}{'es' if noun.endswith('ch') else 's'}"


def _ordinal(number: int) -> str:
    suffix = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number:,}{'th' if number % 100 in (11, 12, 13) else suffix}"
