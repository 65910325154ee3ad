"""The shipped experiments reproduce the recorded losses, and a changed loss is found."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import golden_losses as golden
import pytest
import torch
from golden_losses import Golden, compare, measure, path_of, read
from hypothesis import given
from hypothesis import strategies as st

from loopwright.shipped import conf_dir

HERE = Path(__file__).parent
SLOW = ("gpt_stdlib", "vit_digits")
DIGITS = read(min(HERE.glob("golden/torch-*/digits.json")))
STEPS = sorted((step, name) for name, curve in DIGITS.losses.items() for step in curve)


def is_pinned() -> bool:
    pinned = re.search(r"^torch==(\S+)$", (HERE.parent / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    return torch.__version__.partition("+")[0] == pinned[1]


def moved(recorded: Golden, step: int, name: str, factor: float) -> Golden:
    """Return a copy with one changed loss."""
    curve = {**recorded.losses[name], step: recorded.losses[name][step] * factor}
    return replace(recorded, losses={**recorded.losses, name: curve})


def elsewhere(recorded: Golden) -> Golden:
    """Return a copy that names another processor."""
    return replace(recorded, kernels={**recorded.kernels, "processor": "another"})


@pytest.mark.parametrize(
    "experiment", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in golden.RUNS]
)
def test_the_recorded_losses_are_reproduced(experiment: str) -> None:
    if not path_of(experiment).exists() and not is_pinned():
        pytest.skip(f"no golden losses for torch {torch.__version__}, which constraints.txt does not name")
    verdict = golden.check(experiment)
    if verdict.is_same is None:
        pytest.skip(f"{experiment}: {verdict.text}")
    assert verdict.is_same, verdict.text


def test_no_shipped_experiment_is_left_out() -> None:
    shipped = {path.stem for path in (conf_dir() / "experiment").glob("*.yaml")}
    assert shipped == {*golden.RUNS, "gpt_stdlib_eval"}


@pytest.fixture(scope="module")
def now() -> Golden:
    return measure("digits")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "step"), [("seed=1", 1), ("optimizer.lr=0.003001", 2), ("loop.grad_accum_steps=2", 1)]
)
def test_another_setting_is_found_at_the_first_step_that_it_changes(now: Golden, override: str, step: int) -> None:
    other = replace(measure("digits", override), command=now.command)
    verdict = compare(now, other)
    assert verdict.is_same is False
    assert verdict.text.startswith(
        f"first difference at step {step}, train/loss: recorded {now.losses['train/loss'][step]}"
    )
    assert compare(now, elsewhere(other)).is_same is False


@given(key=st.sampled_from(STEPS), factor=st.sampled_from([1 - 1e-3, 1 + 1e-3, 1 + 2**-50, float("nan"), float("inf")]))
def test_one_changed_loss_is_found_and_its_step_is_named(key: tuple[int, str], factor: float) -> None:
    altered = moved(DIGITS, *key, factor)
    here, there = compare(DIGITS, altered), compare(DIGITS, elsewhere(altered))
    assert here.is_same is False
    assert here.text.startswith(
        f"first difference at step {key[0]}, {key[1]}: recorded {DIGITS.losses[key[1]][key[0]]}, "
    )
    assert "; 1 of 104 values differ" in here.text
    assert there.is_same is (factor == 1 + 2**-50)
    assert there.text.endswith(f"; not compared bitwise: processor is another, was {DIGITS.kernels['processor']}")


@pytest.mark.parametrize("order", [1, -1])
def test_a_missing_or_extra_loss_is_found(order: int) -> None:
    shorter = replace(DIGITS, losses={**DIGITS.losses, "val/loss": {25: DIGITS.losses["val/loss"][25]}})
    verdict = compare(*(DIGITS, shorter)[::order])
    assert verdict.is_same is False and verdict.text.startswith("first difference at step 50, val/loss: ")


def test_two_losses_that_are_nan_are_equal() -> None:
    altered = moved(DIGITS, *STEPS[0], float("nan"))
    assert compare(altered, moved(DIGITS, *STEPS[0], float("nan"))).is_same is True


def test_files_without_losses_are_not_equal() -> None:
    empty = replace(DIGITS, losses={"train/loss": {}, "val/loss": {}})
    assert compare(empty, empty).is_same is False
    assert compare(DIGITS, empty).is_same is False


def test_results_of_different_commands_are_not_compared() -> None:
    verdict = compare(replace(DIGITS, command="loopwright"), DIGITS)
    assert verdict == golden.Verdict(False, f"another command: recorded loopwright, now {DIGITS.command}")


def test_other_final_weights_are_found_if_all_losses_are_equal() -> None:
    verdict = compare(DIGITS, replace(DIGITS, weights_sha256="0"))
    assert verdict.is_same is False and "but not the final weights" in verdict.text


@pytest.mark.parametrize(("python", "is_same"), [(DIGITS.python, False), ("3.99.0", None)])
def test_other_data_are_a_difference_unless_python_differs(python: str, is_same: bool | None) -> None:
    verdict = compare(DIGITS, replace(DIGITS, python=python, data={"train_sha256": "0"}))
    assert verdict.is_same is is_same


@pytest.fixture
def one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden, "RUNS", {"csv_example": ("loop.max_steps=4", "loop.eval_frequency=2")})


@pytest.mark.slow
@pytest.mark.usefixtures("one_run")
def test_the_command_compares_and_renews(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*words: str) -> tuple[int, str]:
        return golden.main(words, tmp_path), capsys.readouterr().out

    path = path_of("csv_example", tmp_path)
    remedy = "`make golden ARGS=--renew` writes it"
    assert said() == (1, f"csv_example: no file for torch {torch.__version__}: {remedy}\n")
    assert not path.exists()
    assert said("--renew") == (0, "csv_example: there was no file; written\n")
    written = path.read_bytes()
    equal = "csv_example: 6 values bitwise equal, and the final weights"
    assert said() == (0, f"{equal}\n")
    golden.write(moved(read(path), 3, "train/loss", 1 + 2**-10), path)
    altered = path.read_bytes()
    code, out = said()
    assert code == 1 and out.startswith("csv_example: first difference at step 3, train/loss: ")
    assert path.read_bytes() == altered
    path.write_text("{}")
    assert said() == (1, f"csv_example: {path} is damaged: `make golden ARGS=--renew` writes it again\n")
    path.write_bytes(altered)
    code, out = said("--renew")
    assert code == 0 and out.startswith("csv_example: first difference at step 3") and "9.8e-04 relative" in out
    assert path.read_bytes() == written


@pytest.mark.usefixtures("one_run")
def test_a_failed_run_reports_its_error() -> None:
    with pytest.raises(RuntimeError, match=r"csv_example: the run ended with exit code 2(.|\n)*optimizer.lr"):
        measure("csv_example", "optimizer.lr=fast")
