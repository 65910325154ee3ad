"""What a value means in steps is what the plan of the run says."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopwright import TrainingLoop
from loopwright.experiment.compose.composer import composing
from loopwright.experiment.compose.origins import names_in
from loopwright.experiment.explain.explained import Explained, explained
from loopwright.experiment.explain.understood import understood
from loopwright.plan import Validate, plan_fit


def understand(key: str, *overrides: str) -> str | None:
    with composing(None) as composer:
        return understood(explained(composer, overrides), names_in(key))


@pytest.mark.parametrize(
    ("key", "overrides", "text"),
    [
        ("loop.eval_frequency", [], "after every 200 of 2,000 steps, 10 times"),
        ("loop.eval_frequency", ["loop.eval_frequency=null"], "never"),
        ("loop.eval_frequency", ["loop.eval_frequency=0.0"], "never"),
        ("loop.eval_frequency", ["loop.eval_frequency=0.07", "loop.num_steps=100"], "after every 7 of 100 steps and "
         "after the last step, 15 times"),
        ("loop.eval_frequency", ["loop.eval_frequency=1.0"], "once, after step 2,000"),
        ("loop.eval_frequency", ["loop.eval_frequency=1"], "after each of 2,000 steps"),
        ("loop.eval_frequency", ["loop.eval_at_start=true"], "after every 200 of 2,000 steps, 10 times, and before the "
         "first step"),
        ("loop.eval_frequency", ["loop.num_epochs=2"], "depends on the data; see loopwright plan loop.num_epochs=2"),
        ("loop.eval_frequency", ["ckpt_path=x"], "depends on the data; see loopwright plan ckpt_path=x"),
        ("loop.eval_frequency", ["loop.eval_frequency='1 epoch'"], "depends on the data; see loopwright plan "
         "'loop.eval_frequency='\"'\"'1 epoch'\"'\"''"),
        ("loop.eval_frequency", ["loop.eval_frequency='2 epochs'", "loop.steps_per_epoch=50"], "after every 100 of "
         "2,000 steps, 20 times"),
        ("loop.eval_frequency", ["loop.eval_frequency=1.5"], None),
        ("loop.eval_frequency", ["loop.eval_frequency=word"], None),
        ("loop.num_epochs", [], None),
        ("loop.num_epochs", ["loop.num_epochs=3"], "depends on the data; see loopwright plan loop.num_epochs=3"),
        ("loop.grad_accum_steps", ["loop.grad_accum_steps=4"], "128 samples a step, in micro-batches of 32"),
        ("loop.grad_accum_steps", ["device.num_processes=2"], None),
        ("checkpoint.every_n_steps", [], "after every 500 of 2,000 steps, 4 times, and at each validation"),
        ("checkpoint.every_n_steps", ["checkpoint.at_validations=false", "checkpoint.every_n_steps=300"], "after every "
         "300 of 2,000 steps and after the last step, 7 times"),
        ("checkpoint.every_n_steps", ["checkpoint.every_n_steps=null"], None),
        ("log_every_n_steps", ["loop.max_steps=10"], "once, after step 10"),
        ("scheduler.warmup_steps", ["scheduler.warmup_steps=0.05"], "100 of 2,000 steps"),
        ("scheduler.warmup_steps", ["scheduler.warmup_steps=7"], None),
        ("scheduler.warmup_steps", ["scheduler.warmup_steps=0.05", "loop.num_epochs=1"], "depends on the data; see "
         "loopwright plan scheduler.warmup_steps=0.05 loop.num_epochs=1"),
        ("seed", [], None),
        ("seed", ["seed=null"], "Loopwright draws a seed when the run starts, and records it"),
        ("device.num_threads", [], "Loopwright chooses a number when the run starts, and records it"),
        ("device.num_threads", ["device.num_threads=2"], None),
        ("device.kind", ["device=cpu"], None),
        ("model.num_classes", [], "the data of the run determine this value; see loopwright plan"),
        ("model.num_classes", ["model.num_classes=10"], None),
        ("sweep.seed", ["sweep.seed=3"], "has an effect only with -m"),
        ("optimizer.lr", [], None),
    ],
)  # fmt: skip
def test_a_value_is_described_in_steps(key: str, overrides: list[str], text: str | None) -> None:
    assert understand(key, *overrides) == text


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 5000),
    st.integers(1, 6000) | st.floats(0.001, 1.0, exclude_min=True).map(lambda value: round(value, 3)),
)
def test_the_number_of_validations_is_the_number_in_the_plan(num_steps: int, eval_frequency: int | float) -> None:
    loop = {"_target_": "loopwright.loop.TrainingLoop", "max_steps": num_steps, "eval_frequency": eval_frequency}
    text = understood(config_of(loop), ("loop", "eval_frequency")) or ""
    plan = plan_fit(TrainingLoop(max_steps=num_steps, eval_frequency=eval_frequency), 10, val={"val": 3})
    steps = [stage.step for stage in plan if isinstance(stage, Validate)]
    times = num_steps if "each of" in text else 1 if text.startswith("once") else int(text.split()[-2].replace(",", ""))
    assert times == len(steps) and f"{num_steps:,}" in text
    if times > 1 and "each of" not in text:
        assert int(text.split()[2].replace(",", "")) == steps[0]


def config_of(loop: dict[str, object]) -> Explained:
    with composing(None) as composer:
        known = explained(composer, ())
    return Explained(
        overrides=(), raw={}, values={**known.values, "loop": loop}, origins=known.origins, settled={}, choices={}
    )
