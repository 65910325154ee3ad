"""A metric that nothing can log is recognised by its name before a fit."""

from __future__ import annotations

from typing import Any

import pytest

from loopwright import TrainingLoop
from loopwright.plan import metric_problem, plan_fit


def problem(
    metric: str,
    *sets: str,
    downstream: tuple[str, ...] = (),
    eval_frequency: int | None = 2,
    is_of_round: bool = False,
    has_own_outputs: bool = False,
) -> str | None:
    loop = TrainingLoop(num_steps=4, eval_frequency=eval_frequency)
    tasks: Any = dict.fromkeys(downstream, 1)
    plan = plan_fit(loop, 8, val=dict.fromkeys(sets, 2), downstream=tasks)
    return metric_problem(metric, plan, is_of_round=is_of_round, has_own_outputs=has_own_outputs)


@pytest.mark.parametrize(
    ("metric", "sets", "settings"),
    [
        ("val/loss", ["val"], {}),
        ("val/los", ["val"], {}),  # may be an output of the model
        ("val/top/1", ["val"], {"has_own_outputs": True}),
        ("val/web/loss", ["val/web"], {}),
        ("val/loss", ["val/web"], {}),
        ("val/web/top/1", ["val/web", "val/books"], {}),
        ("val/loss", ["val/web", "val/books"], {}),
        ("val/a/b/loss", ["val/a/b"], {}),
        ("train/loss", ["val"], {}),
        ("train/los", [], {}),
        ("probe/score", ["val"], {"downstream": ("probe",)}),
        ("probe/score", [], {"downstream": ("probe",)}),
        ("val/probe/score", ["val/web"], {"downstream": ("val/probe",), "is_of_round": True}),
        ("val/loss", [], {}),  # nothing is validated: a preset may have turned off the validations
        ("val/wob/loss", ["val/web"], {"eval_frequency": None}),
        ("val/loss", [], {"downstream": ("probe",)}),
    ],
)
def test_a_metric_that_may_come_is_accepted(metric: str, sets: list[str], settings: dict[str, Any]) -> None:
    assert problem(metric, *sets, **settings) is None


_SETS = ["val/web", "val/books"]
_MEAN = "val/loss is the mean over the sets"


@pytest.mark.parametrize(
    ("metric", "sets", "settings", "message"),
    [
        ("loss", ["val"], {}, "expected a metric whose name begins with train/ or val/. Did you mean val/loss?"),
        ("accuracy", [], {}, "expected a metric whose name begins with train/ or val/. Did you mean val/accuracy?"),
        (
            "vla/loss",
            ["val/web"],
            {"downstream": ("probe",)},
            "expected a metric whose name begins with train/, val/, val/web/ or probe/. Did you mean val/loss?",
        ),
        ("train/loss", ["val"], {"is_of_round": True}, "expected a metric whose name begins with val/. Did you mean"),
        ("val/wob/loss", _SETS, {}, f"Available: val/web, val/books, and {_MEAN}. Did you mean val/web/loss?"),
        ("val/wob/loss", _SETS, {"has_own_outputs": True}, "no such validation set. Available: val/web, val/books"),
        ("val/zzzzzzz/f1", _SETS, {}, "no such validation set. Available: val/web, val/books, and val/f1 is the mean"),
        ("val/foo/loss", ["val"], {}, "no such validation set. Available: val. Did you mean val/loss?"),
        ("val/we/loss", ["val", "val/web"], {}, "no such validation set. Available: val, val/web. Did you mean"),
    ],
)
def test_a_metric_that_cannot_come_is_named_with_the_nearest_one(
    metric: str, sets: list[str], settings: dict[str, Any], message: str
) -> None:
    found = problem(metric, *sets, **settings)
    assert found is not None and found.startswith(f"={metric!r}: ") and message in found
