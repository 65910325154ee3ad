"""`encode`, which converts a plan to a short list. One entry of the list can represent many repeated stages.

The number of repetitions is computed from the intervals of saves and validations, without generating the stages. So
the time to encode a plan does not depend on its number of steps. A downstream validation is a validation that a
callback runs in its hook ``run_validation``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from loopwright.plan.cadence import next_multiple
from loopwright.plan.plan import Plan

_MAX_RUNS = 40
_MAX_RUNS_SHOWN = 12


class Block(NamedTuple):
    """Training steps, and the save and the validations after these steps.

    If a plan begins with validations, the first block of the plan has 0 steps, and may have a save. All other blocks
    have at least 1 step.
    """

    num_steps: int
    is_saved: bool
    is_validated: bool
    downstream: tuple[str, ...]


class Repeat(NamedTuple):
    """``body``, repeated ``times`` times."""

    times: int
    body: tuple[Item, ...]


class Elided(NamedTuple):
    """Placeholder for the stages from the end of step ``start`` to the end of step ``stop``.

    Saves and validations also follow the intervals of the plan in these stages. The sequence of stages does not repeat
    within 40 entries.
    """

    start: int
    stop: int


Item = Block | Repeat | Elided


def encode(plan: Plan) -> list[Item]:
    """Convert ``plan`` to a short list of entries that represents its stages.

    The list represents the stages exactly if the plan needs at most 40 entries, or if the sequence of stages repeats
    within 40 entries. Otherwise, an `Elided` replaces the middle of the plan, for example if the intervals of saves and
    validations are 997 and 1009 steps.
    """
    items: list[Item] = []
    if plan.begins_with_validation:
        items.append(Block(0, plan.begins_with_save, True, plan.downstream_at(plan.position)))
    runs: list[Item] = []
    first_seen: dict[tuple[int, ...], tuple[int, int]] = {}
    step = plan.position
    folded: Repeat | None = None
    while step < plan.stop_step:
        phase = _phase(plan, step)
        if folded is None and phase in first_seen:
            index, cycle_start = first_seen[phase]
            num_more = (plan.stop_step - 1 - step) // (step - cycle_start)
            if num_more:
                items += _fold(runs[:index])
                folded, runs = Repeat(1 + num_more, tuple(_fold(runs[index:]))), []
                step += num_more * (step - cycle_start)
        if folded is None:
            first_seen.setdefault(phase, (len(runs), step))
            if len(runs) == _MAX_RUNS:
                return _merged([*items, *_cut_short(plan, runs)])
        count, block = _next_run(plan, step)
        step += count * block.num_steps
        runs.append(block if count == 1 else Repeat(count, (block,)))  # not merged: `first_seen` has indices of `runs`
    return _merged([*items, *_join(folded, _fold(runs))])


def encoded_json(items: Iterable[Item]) -> list[dict[str, object]]:
    """Convert the entries to JSON values."""
    return [_item_json(item) for item in items]


def _item_json(item: Item) -> dict[str, object]:
    if isinstance(item, Repeat):
        return {"repeat": item.times, "stages": encoded_json(item.body)}
    if isinstance(item, Elided):
        return {"elided": [item.start, item.stop]}
    return {
        "train": item.num_steps,
        "save": item.is_saved,
        "validate": item.is_validated,
        "downstream": list(item.downstream),
    }


def _phase(plan: Plan, step: int) -> tuple[int, ...]:
    """Return the position of ``step`` in the intervals of saves, validations and downstream validations.

    Positions in the save interval and the validation interval are in steps. Positions in the intervals of downstream
    validations are in validations.

    If the tuples of two steps are equal, equal stages follow these steps, except at the end of the plan.
    """
    save = 0 if plan.save_every is None else step % plan.save_every
    if plan.eval_every is None:
        return (save,)
    since_last = (step - plan.start_step) % plan.eval_every
    index = (step - plan.start_step) // plan.eval_every
    return (save, since_last, *(index % every_n_vals for _, every_n_vals in plan.downstream))


def _block_between(plan: Plan, step: int, stop: int) -> Block:
    return Block(stop - step, plan.saves_at(stop), plan.validates_at(stop), plan.downstream_at(stop))


def _next_run(plan: Plan, step: int) -> tuple[int, Block]:
    """Return the number of repetitions of the block after ``step``, and the block. The last block is not repeated."""
    stop = plan.next_boundary(step)
    block = _block_between(plan, step, stop)
    length = block.num_steps
    if stop == plan.stop_step:
        return 1, block
    limits = [(plan.stop_step - 1 - step) // length]
    if plan.save_every is not None:
        if plan.saves_multiple_at(stop):
            limits.append(limits[0] if length == plan.save_every else 1)
        else:
            limits.append((next_multiple(step, plan.save_every) - 1 - step) // length)
    if plan.eval_every is not None:
        if block.is_validated:
            limits.append(limits[0] if length == plan.eval_every else 1)
            limits.append(_equal_rounds(plan, stop))
        else:
            limits.append((next_multiple(step, plan.eval_every, origin=plan.start_step) - 1 - step) // length)
    return min(limits), block


def _equal_rounds(plan: Plan, step: int) -> int:
    """Return how many consecutive validations, starting at ``step``, have the same downstream validations.

    The result is an upper bound, because the plan may end earlier.
    """
    index = plan.num_validations(step)
    limit = plan.num_validations(plan.stop_step)
    for _, every_n_vals in plan.downstream:
        if every_n_vals > 1:
            limit = min(limit, every_n_vals - index % every_n_vals if index % every_n_vals else 1)
    return limit


def _merged(items: Iterable[Item]) -> list[Item]:
    """Merge consecutive entries with equal bodies, and replace a `Repeat` of one `Repeat` by a single `Repeat`."""
    merged: list[Item] = []
    for item in items:
        times, body = (item.times, item.body) if isinstance(item, Repeat) else (1, (item,))
        if len(body) == 1 and isinstance(body[0], Repeat):
            times, body = times * body[0].times, body[0].body
        last = merged[-1] if merged else None
        if last is not None and body == (last.body if isinstance(last, Repeat) else (last,)):
            times += last.times if isinstance(last, Repeat) else 1
            merged.pop()
        merged.append(Repeat(times, body) if times > 1 else item)
    return merged


def _fold(items: list[Item]) -> list[Item]:
    """Replace consecutive equal groups of entries by one `Repeat`: first groups of one entry, then larger groups."""
    items = _merged(items)
    for size in range(2, _MAX_RUNS // 2 + 1):
        folded: list[Item] = []
        index = 0
        while index < len(items):
            group, count = items[index : index + size], 1
            while len(group) == size and items[index + count * size : index + (count + 1) * size] == group:
                count += 1
            folded.append(items[index] if count == 1 else Repeat(count, tuple(group)))
            index += 1 if count == 1 else count * size
        items = folded
    return items


def _join(folded: Repeat | None, tail: list[Item]) -> list[Item]:
    """Append ``tail`` to the repeated cycle. If ``tail`` begins with the cycle, add 1 to the number of repetitions."""
    if folded is None:
        return tail
    size = len(folded.body)
    if tuple(tail[:size]) == folded.body:
        return [Repeat(folded.times + 1, folded.body), *tail[size:]]
    return [folded, *tail]


def _cut_short(plan: Plan, runs: list[Item]) -> list[Item]:
    """Return the first entries of the plan, an `Elided` for the stages in the middle, and the last block."""
    shown = runs[:_MAX_RUNS_SHOWN]
    start = plan.position + sum(_num_steps(item) for item in shown)
    stop = _boundary_before_last(plan)
    return [*_fold(shown), Elided(start, stop), _block_between(plan, stop, plan.stop_step)]


def _boundary_before_last(plan: Plan) -> int:
    step = plan.stop_step - 1
    boundaries = [plan.position]
    if plan.save_every is not None:
        boundaries.append(step - step % plan.save_every)
    if plan.eval_every is not None:
        boundaries.append(step - (step - plan.start_step) % plan.eval_every)
    return max(boundaries)


def _num_steps(item: Item) -> int:
    if isinstance(item, Repeat):
        return item.times * sum(_num_steps(entry) for entry in item.body)
    return 0 if isinstance(item, Elided) else item.num_steps
