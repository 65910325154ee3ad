"""The learning rates of a run, drawn as a line of characters before training."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from command import Answer, run_dirs
from loopwright import TrainingLoop
from loopwright.errors import SettingError
from loopwright.experiment.gate.trust import NO_TRUST
from loopwright.experiment.jobs.objects import build_optimizer, build_schedulers
from loopwright.experiment.jobs.rate_curve import learning_rate_course
from loopwright.plan import plan_fit

Cli = Callable[..., Answer]
ADAMW = {"_target_": "torch.optim.AdamW", "_partial_": True, "lr": 0.5}


def course(scheduler: Any, num_steps: int = 8, after: int = 0, optimizer: Any = ADAMW) -> str:
    plan = plan_fit(TrainingLoop(num_steps=num_steps), 10).after(after)
    schedulers = build_schedulers(scheduler, NO_TRUST)
    return learning_rate_course(build_optimizer(optimizer, NO_TRUST), schedulers)(plan)


def ours(name: str, **settings: Any) -> dict[str, Any]:
    return {"_target_": f"loopwright.optim.{name}", "_partial_": True, **settings}


def torchs(name: str, **settings: Any) -> dict[str, Any]:
    return {"_target_": f"torch.optim.lr_scheduler.{name}", "_partial_": True, **settings}


@pytest.mark.parametrize(
    ("scheduler", "line"),
    [
        (None, "0.5 throughout"),
        (ours("linear"), "█▇▆▅▄▃▂▁  first 0.5, last 0.0625"),
        (ours("linear", warmup_steps=3), "▂▄▆█▆▅▃▂  first 0.125, highest 0.5, last 0.1"),
        (torchs("StepLR", step_size=4, gamma=0.5), "████▄▄▄▄  first 0.5, last 0.25"),
        (
            [torchs("ConstantLR", factor=0.5, total_iters=2), torchs("StepLR", step_size=4, gamma=0.5)],
            "▄▄██▄▄▄▄  first 0.25, highest 0.5, last 0.25",
        ),
        (
            {"scheduler": torchs("ReduceLROnPlateau"), "monitor": "val/loss"},
            "0.5 throughout, reduced when val/loss stops improving",
        ),
    ],
)
def test_a_line_shows_the_rates_of_the_steps(scheduler: Any, line: str) -> None:
    assert course(scheduler) == line


def test_the_rest_of_a_run_shows_the_end_of_the_line() -> None:
    assert course(ours("linear"), after=4) == "█▆▄▂  first 0.25, last 0.0625"
    assert course(torchs("StepLR", step_size=4, gamma=0.5), after=6) == "0.25 throughout"


def test_parameter_groups_do_not_change_the_line() -> None:
    grouped = ours("adamw", lr=0.5, rate_factors={"layers.0.*": 0.1}, without_decay=["*.bias"])
    assert course(ours("linear"), optimizer=grouped) == course(ours("linear"))


def test_a_plan_of_many_million_steps_is_drawn_quickly() -> None:
    begun = time.process_time()
    assert course(ours("linear"), num_steps=10**9).startswith("█")
    assert course(torchs("StepLR", step_size=4), num_steps=10**9) == "0.5 at first, then set by StepLR"
    assert time.process_time() - begun < 5


def test_a_scheduler_that_does_not_fit_the_plan_is_refused_with_its_path() -> None:
    with pytest.raises(SettingError, match=r"^scheduler\.warmup_steps=9: expected at most 8, the steps of the run"):
        course(ours("linear", warmup_steps=9))
    with pytest.raises(SettingError, match=r"^scheduler: Tried to step"):
        course(torchs("OneCycleLR", max_lr=1.0, total_steps=4))
    with pytest.raises(SettingError, match=r"^optimizer: Invalid learning rate: -1"):
        course(None, optimizer=ADAMW | {"lr": -1})


def test_plan_and_run_directory_show_the_same_line(small: Cli, tmp_path: Path) -> None:
    said = small("plan", "scheduler=linear").out
    assert "  learning rate  █▆▄▂  first 0.003, last 0.00075\n" in said
    small("scheduler=linear")
    assert (run_dirs(tmp_path)[0] / "plan.txt").read_text() == said


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("scheduler.warmup_steps=5", "scheduler.warmup_steps=5: expected at most 4, the steps of the run"),
        ("optimizer.without_decay=[norm]", "optimizer.without_decay='norm': matches no parameter. Parameters: layers"),
        ("optimizer.kind=fast", "optimizer.kind='fast': expected 'auto' or 'for_loop' or 'foreach' or 'fused'."),
    ],
)
def test_a_setting_that_does_not_fit_the_run_is_refused_before_it(
    small: Cli, tmp_path: Path, override: str, said: str
) -> None:
    answer = small("scheduler=linear", override)
    assert answer.code == 2 and answer.err.startswith(said)
    assert not list(tmp_path.glob("outputs/*"))


def test_an_output_without_bars_gets_plain_characters(
    small: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with (tmp_path / "out.txt").open("w", encoding="ascii") as ascii_out:
        monkeypatch.setattr("sys.stdout", ascii_out)
        assert small("plan", "scheduler=linear").code == 0
    assert "  learning rate  #+-.  first 0.003" in (tmp_path / "out.txt").read_text()
