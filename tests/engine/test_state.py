"""The state of a run: what is gathered for a checkpoint, and what of it is put back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import OneCycleLR

from loopwright import Callback, Logger
from loopwright.engine.state import apply_state, gather_state
from loopwright.errors import CheckpointError
from tiny import Regression, batches, parts


def trained(*callbacks: Callback, **settings: Any) -> Any:
    """Parts whose optimizer has made one step."""
    ours = parts(*callbacks, **settings)
    ours.model(batches(1, 4)[0])["loss"].backward()
    ours.optimizer.step()
    ours.state.global_step = 1
    return ours


@pytest.mark.parametrize(("step", "num_validated"), [(1, 2), (0, 0)])
def test_validations_of_an_earlier_step_are_not_counted(step: int, num_validated: int) -> None:
    """Catches a resumed run that leaves out validations, because as many were done at another step."""
    ours = trained()
    ours.state.validated = (step, 2)
    state = gather_state(ours, None)
    assert state["position"]["num_validated"] == num_validated
    again = parts()
    apply_state(again, state)
    assert again.state.validated == (1, num_validated)


def test_the_position_is_put_back_as_it_was() -> None:
    """Catches counters that are swapped."""
    ours = trained()
    ours.state.pass_index, ours.state.micro_batch_index = 5, 3
    again = parts()
    apply_state(again, gather_state(ours, None))
    assert (again.state.global_step, again.state.pass_index, again.state.micro_batch_index) == (1, 5, 3)


def test_a_schedule_over_a_longer_run_keeps_its_own_length() -> None:
    """Catches a `OneCycleLR` that raises at the first step after the end that it was saved with."""

    def with_schedule(total_steps: int, num_steps: int) -> Any:
        ours = parts()
        ours.schedulers = [OneCycleLR(ours.optimizer, 0.1, total_steps=total_steps)]
        for _ in range(num_steps):
            ours.optimizer.step()
            ours.schedulers[0].step()
        return ours

    again, straight = with_schedule(8, 0), with_schedule(8, 5)
    apply_state(again, gather_state(with_schedule(4, 3), None))
    for _ in range(2):
        again.optimizer.step()
        again.schedulers[0].step()
    assert again.optimizer.param_groups[0]["lr"] == straight.optimizer.param_groups[0]["lr"]


def test_optimizer_tensors_keep_the_type_that_they_were_saved_in() -> None:
    """Catches NAdam's running product in the type of a float64 parameter, with which training differs."""

    def with_nadam() -> Any:
        model = Regression(torch.bfloat16)
        ours = parts(model=model, optimizer=torch.optim.NAdam(model.parameters()))
        ours.model(tuple(tensor.bfloat16() for tensor in batches(1)[0]))["loss"].backward()
        ours.optimizer.step()
        return ours

    saved, again = with_nadam(), with_nadam()
    apply_state(again, gather_state(saved, None))
    for state in again.optimizer.state.values():
        assert (state["mu_product"].dtype, state["exp_avg"].dtype) == (torch.float32, torch.bfloat16)


class Keeping(Callback):
    """Keeps a number, and refuses to take back another than 1."""

    def __init__(self, number: int) -> None:
        self.number = number

    def state_dict(self) -> dict[str, Any]:
        return {"number": self.number}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict["number"] != 1:
            raise ValueError("only 1\nis known")


def test_a_callback_that_cannot_use_its_state_is_named_in_one_line() -> None:
    """Catches a traceback of a callback in place of the part of the checkpoint that does not fit."""
    state = gather_state(trained(Keeping(2)), None)
    with pytest.raises(CheckpointError) as caught:
        apply_state(parts(Keeping(1)), state)
    assert str(caught.value) == "callbacks.Keeping: cannot be loaded (ValueError: only 1 is known)."


def test_a_logger_that_was_not_there_before_is_allowed() -> None:
    """Catches a run that cannot be resumed with one more logger."""

    class Counting(Logger):
        def state_dict(self) -> dict[str, Any]:
            return {"count": 1}

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            raise AssertionError("there is no state of it")

    apply_state(parts(Counting()), gather_state(trained(), None))
