"""The number of validation batches to validate."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopwright.plan import eval_steps_note, mean_prefix, validation_batches


@given(length=st.integers(1, 100), eval_steps=st.integers(1, 100))
def test_no_batch_is_counted_twice(length: int, eval_steps: int) -> None:
    assert validation_batches(length, eval_steps) == min(length, eval_steps)
    assert (eval_steps_note(length, eval_steps) is not None) == (eval_steps > length)


def test_all_batches_are_validated_by_default() -> None:
    assert validation_batches(79) == 79
    assert eval_steps_note(79, None) is None


def test_unknown_length_needs_eval_steps() -> None:
    assert validation_batches(None, 50) == 50
    assert eval_steps_note(None, 50) is None
    with pytest.raises(ValueError, match=r"eval_steps=null: .*'val/a' is unknown"):
        validation_batches(None, None, "val/a")


@pytest.mark.parametrize("eval_steps", [None, 3])
def test_an_empty_dataloader_is_refused(eval_steps: int | None) -> None:
    with pytest.raises(ValueError, match=r"len\(val/a\)=0: "):
        validation_batches(0, eval_steps, "val/a")


def test_every_set_with_its_own_name_is_in_the_mean() -> None:
    assert mean_prefix(["val/a", "val/b"]) == mean_prefix(["val/a"]) == mean_prefix(["val/a/b", "val/c"]) == "val"
    assert mean_prefix(["val"]) is mean_prefix(["val", "val/a"]) is mean_prefix([]) is None
    assert mean_prefix(["probe/x/a", "probe/x/b"], "probe/x") == "probe/x"
