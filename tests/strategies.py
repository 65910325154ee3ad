"""Strategies of hypothesis for loops, lengths of dataloaders, and fits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from loopwright.loop import TrainingLoop
from loopwright.plan import Plan, plan_fit


@dataclass(frozen=True)
class FitCase:
    """Valid arguments for one call of `plan_fit`."""

    loop: TrainingLoop
    num_micro_batches: int | None
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def plan(self) -> Plan:
        return plan_fit(self.loop, self.num_micro_batches, **self.options)


def eval_frequencies() -> st.SearchStrategy[int | float | None]:
    """Draw valid values of `eval_frequency`, with short and irregular cadences."""
    fractions = st.floats(min_value=0, max_value=1, exclude_min=True)
    decimals = st.integers(min_value=1, max_value=1000).map(lambda thousandths: thousandths / 1000)
    return st.one_of(st.none(), st.just(0), st.just(0.0), st.integers(1, 12), st.integers(1, 80), decimals, fractions)


def epochs() -> st.SearchStrategy[str]:
    """Draw lengths in epochs, such as ``0.75 epochs``, of up to 4 epochs."""
    hundredths = st.one_of(st.integers(1, 4).map(lambda number: 100 * number), st.integers(1, 400))
    return hundredths.map(lambda number: f"{number // 100}.{number % 100:02} epochs" if number % 100 else
                          f"{number // 100} epoch{'s' if number > 100 else ''}")  # fmt: skip


@st.composite
def fit_cases(draw: st.DrawFn, num_micro_batches: st.SearchStrategy[int | None] | None = None) -> FitCase:
    """Draw a fit of up to about 90 steps, with a dataloader of up to 20 micro-batches or of unknown length."""
    length = draw(st.one_of(st.none(), st.integers(1, 20)) if num_micro_batches is None else num_micro_batches)
    per_step = draw(st.integers(1, 8 if length is None else length))
    steps_per_pass = None if length is None else -(-length // per_step)
    start_step = draw(st.one_of(st.just(0), st.integers(0, 40)))
    settings: dict[str, Any] = {
        "grad_accum_steps": per_step,
        "eval_steps": draw(st.integers(1, 20)),
        "steps_per_epoch": draw(st.one_of(st.none(), st.integers(1, steps_per_pass or 20))),
    }
    has_epochs = steps_per_pass is not None or settings["steps_per_epoch"] is not None
    settings["eval_at_start"] = draw(st.booleans())
    settings["eval_frequency"] = draw(st.one_of(eval_frequencies(), epochs()) if has_epochs else eval_frequencies())
    limit = draw(
        st.sampled_from(["num_steps", "max_steps", "num_epochs"] if has_epochs else ["num_steps", "max_steps"])
    )
    settings[limit] = draw(st.integers(1, 4) if limit == "num_epochs" else st.integers(1, 90))
    if limit != "max_steps":
        settings["max_steps"] = draw(st.one_of(st.none(), st.integers(1, 90)))
    names = st.lists(st.sampled_from(["val", "val/0", "val/1"]), unique=True, max_size=2)
    val = {name: draw(st.one_of(st.none(), st.integers(1, 30))) for name in draw(names)}
    downstream = {
        name: draw(st.integers(1, 5)) for name in draw(st.lists(st.sampled_from(["cloze", "bits"]), unique=True))
    }
    intervals: list[st.SearchStrategy[Any]] = [st.none(), st.integers(1, 12), st.integers(1, 80)]
    if has_epochs:
        intervals.append(st.sampled_from(["1 epoch", "2 epochs"]))  # other epochs may not be a whole number of steps
    options = {
        "val": val,
        "start_step": start_step,
        "start_micro_batch": draw(st.integers(0, 20 if length is None else length)),
        "save_every": draw(st.one_of(intervals)),
        "save_last": draw(st.booleans()),
        "save_at_validations": draw(st.booleans()),
        "downstream": downstream,
    }
    return FitCase(TrainingLoop(**settings), length, options)
