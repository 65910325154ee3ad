"""Laws of the comparison of two runs: exactly equal bytes are reported as equal."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopwright.experiment.verify.reproduction import Outcome, compare

VALUES = st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(["NaN", "Infinity", "-Infinity"]))


def line(step: object, name: str, value: object) -> bytes:
    return json.dumps({"step": step, "name": name, "value": value}).encode() + b"\n"


LINES = st.lists(
    st.one_of(st.builds(line, st.integers(0, 9), st.sampled_from(["val/loss", "lr"]), VALUES), st.binary(max_size=20)),
    max_size=8,
)
STATES = st.sampled_from(["completed", "interrupted", "failed", "running", "None"])
DIGESTS = st.sampled_from([None, "a" * 64, "b" * 64])
OUTCOMES = st.builds(Outcome, state=STATES, global_step=st.integers(), lines=LINES, weights_sha256=DIGESTS)


def outcome(lines: Sequence[bytes], state: str = "completed", weights: str | None = "a" * 64) -> Outcome:
    return Outcome(state=state, global_step=7, lines=lines, weights_sha256=weights)


@given(there=OUTCOMES, here=OUTCOMES)
def test_equal_records_are_reported_as_equal(there: Outcome, here: Outcome) -> None:
    verdict = compare(there, here)
    assert verdict.text.startswith({True: "Reproduced: ", False: "Not reproduced: ", None: "No verdict: "}[
        verdict.is_reproduced
    ])  # fmt: skip
    assert verdict.text.isprintable()
    if verdict.is_reproduced:
        assert there.lines or (there.is_complete and there.weights_sha256 is not None)
        num = len(there.lines)
        assert list(here.lines[:num]) == list(there.lines)
        if there.is_complete:
            assert here.is_complete
            assert not num or len(here.lines) == num
            assert there.weights_sha256 in (None, here.weights_sha256)
            assert there.lines or not here.lines


@given(there=OUTCOMES)
def test_every_run_with_records_reproduces_itself(there: Outcome) -> None:
    has_something = bool(there.lines) or (there.is_complete and there.weights_sha256 is not None)
    assert compare(there, there).is_reproduced is (True if has_something else None)


@given(data=st.data(), lines=LINES.filter(bool))
def test_one_changed_byte_is_found(data: st.DataObject, lines: list[bytes]) -> None:
    index = data.draw(st.integers(0, len(lines) - 1))
    other = data.draw(st.binary(max_size=30).filter(lambda each: each != lines[index]))
    changed = [*lines[:index], other, *lines[index + 1 :]]
    assert compare(outcome(lines), outcome(changed)).is_reproduced is False
    assert compare(outcome(lines, "interrupted"), outcome(changed)).is_reproduced is False


@pytest.mark.parametrize(
    ("theirs", "ours", "said"),
    [
        (
            [line(20, "train/loss", 0.5), line(40, "train/loss", 1.0), line(40, "lr", 0.1)],
            [line(20, "train/loss", 0.75), line(40, "train/loss", 3.0), line(40, "lr", 0.1)],
            "first difference at step 20, train/loss: 0.5 recorded, 0.75 now (0.25); "
            "the largest at step 40, train/loss: 1.0 recorded, 3.0 now (2); 2 of 3 metrics differ",
        ),
        (
            [line(20, "a", 1.0), line(30, "b", 1.0)],
            [line(10, "c", 1.0), line(20, "a", 1.0)],
            "first difference at step 10, c: none recorded, 1.0 now; 2 of 3 metrics differ; "
            "1 only in the recorded run; 1 only in the new run",
        ),
        ([line(1, "a", 0.0)], [line(1, "a", -0.0)], "at step 1, a: 0.0 recorded, -0.0 now (0); 1 of 1 metrics differ"),
        ([line(1, "a", 1.0)], [line(1, "a", "NaN")], "at step 1, a: 1.0 recorded, NaN now; 1 of 1 metrics differ"),
        ([line(1, "a", 1.0)], [b"half\n"], "at step 1, a: 1.0 recorded, none now"),
        (
            [line(1, "a", 1.0)] * 2,
            [line(1, "a", 1.0)],
            "1.0 recorded, none now; 1 of 2 metrics differ; 1 only in the recorded run",
        ),
    ],
)
def test_the_first_and_the_largest_difference_are_named(theirs: list[bytes], ours: list[bytes], said: str) -> None:
    assert said in compare(outcome(theirs), outcome(ours)).text


def test_missing_metrics_are_not_reported_as_equal() -> None:
    lines = [line(step, "loss", float(step)) for step in range(1, 9)]
    verdict = compare(outcome([]), outcome(lines))
    assert verdict.is_reproduced is None
    assert verdict.text == (
        "No verdict: the recorded run has no metrics, and the new run has 8 metrics up to step 8; "
        "the weights are bitwise equal."
    )
    assert compare(outcome([]), outcome(lines, weights="b" * 64)).is_reproduced is False
    assert compare(outcome([]), outcome([])).is_reproduced is True


def test_steps_that_only_one_of_two_runs_reached_are_not_compared() -> None:
    lines = [line(step, "loss", float(step)) for step in range(1, 9)]
    assert compare(outcome(lines[:5], "interrupted"), outcome(lines)).is_reproduced is True
    assert compare(outcome(lines), outcome(lines[:5], "interrupted")).is_reproduced is None
    assert compare(outcome(lines), outcome(lines[:5])).is_reproduced is False
    assert compare(outcome(lines[:5], "failed"), outcome(lines[:6], "failed")).is_reproduced is True
    assert compare(outcome(lines[:5], "failed"), outcome(lines[:4], "failed")).is_reproduced is None
    assert "the new run was interrupted at" in compare(outcome([]), outcome([], "interrupted")).text
