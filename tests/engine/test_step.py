"""One step: its micro-batches, the counters that it moves, and the values that it logs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from loopwright import Callback
from loopwright.data import as_source
from loopwright.engine.feed import Feed
from loopwright.engine.step import Step
from loopwright.errors import DataError
from tiny import Regression, is_bitwise_equal, largest_difference, parts, rows, weights


def step_on(data: Any, *callbacks: Callback, **settings: Any) -> tuple[Step, Any]:
    """A step that reads ``data`` from its beginning, and the parts it works on."""
    torch.manual_seed(0)
    ours = parts(*callbacks, **({"model": Regression(torch.float64)} | settings))
    return Step(ours, ours.optimizer, Feed(as_source(data, 0), ours.state)), ours


def cut(*sizes: int) -> list[tuple[Tensor, Tensor]]:
    """The first rows of float64, in micro-batches of these sizes."""
    features, target = (tensor[: sum(sizes)] for tensor in rows(12, torch.float64).tensors)
    return list(zip(features.split(sizes), target.split(sizes), strict=True))


def test_a_step_of_unequal_micro_batches_is_one_over_the_joined_batch() -> None:
    """Catches a mean of means, in the update and in the logged values."""
    results = []
    for sizes in ((7,), (4, 1, 2)):
        step, ours = step_on(cut(*sizes))
        logged: dict[str, Any] = {}
        assert step.run(len(sizes), 0, logged.update) == len(sizes)
        results.append((weights(ours.model), {name: float(value) for name, value in logged.items()}))
    assert largest_difference(results[1][0], results[0][0]) < 1e-12
    assert results[1][1] == pytest.approx(results[0][1], rel=1e-12)


def test_the_counters_move_where_a_window_closes_and_before_the_step_is_logged() -> None:
    """Catches a log line of the step before, and a checkpoint that is taken for one of a finished step."""
    seen: list[tuple[str, int, bool]] = []

    class Watching(Callback):
        def on_train_step_end(self, *_: Any) -> None:
            seen.append(("step", state.global_step, state.is_inside_window))

        def on_train_batch_end(self, *_: Any) -> None:
            seen.append(("batch", state.global_step, state.is_inside_window))

    step, ours = step_on(cut(2, 2), Watching())
    state = ours.state
    step.run(2, 0, lambda values: seen.append(("log", state.global_step, state.is_inside_window)))
    first, second = [("step", 0, True), ("batch", 0, True)], [("step", 0, True), ("log", 1, False), ("batch", 1, False)]
    assert seen == [*first, *second]


def test_micro_batches_are_numbered_on_from_the_first() -> None:
    """Catches numbers that start from 0 again in each step."""
    seen: list[int] = []

    class Watching(Callback):
        def on_train_batch_start(self, *args: Any) -> None:
            seen.append(args[-1])

    step, _ = step_on(cut(2, 2, 2), Watching())
    assert step.run(3, 4, None) == 3
    assert seen == [4, 5, 6]


@pytest.mark.parametrize("num_left", [1, 2])
def test_a_dataloader_of_unknown_length_that_ends_closes_the_step(num_left: int) -> None:
    """Catches a step that crosses the end of a pass, and a short step whose gradients are sums."""

    class Lengthless:
        def __iter__(self) -> Any:
            return iter(cut(3, 3)[:num_left])

    step, ours = step_on(Lengthless())
    assert step.run(4, 0, None) == num_left
    assert (ours.state.pass_index, ours.state.micro_batch_index, ours.state.global_step) == (1, 0, 1)
    whole, other = step_on(cut(3 * num_left))
    whole.run(1, 0, None)
    assert largest_difference(weights(ours.model), weights(other.model)) < 1e-12


class Masked(nn.Module):
    """A mean over unmasked items, which is NaN where there are none."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(2, 1).double()

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Any]:
        features, mask = batch
        errors = self.head(features).squeeze(-1).square()
        return {"loss": (errors * mask).sum() / mask.sum(), "num_items": int(mask.sum())}


def test_a_micro_batch_without_items_changes_nothing() -> None:
    """Catches weights that become NaN by a micro-batch all of whose items are masked."""
    features = torch.randn(8, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mask = torch.tensor([1.0, 1, 0, 0, 1, 1, 1, 0])
    results = []
    for size in (8, 2):
        data = list(zip(features.split(size), mask.split(size), strict=True))
        torch.manual_seed(0)
        step, ours = step_on(data, model=Masked())
        logged: dict[str, Any] = {}
        step.run(8 // size, 0, logged.update)
        results.append((weights(ours.model), float(logged["loss"])))
    assert largest_difference(results[1][0], results[0][0]) < 1e-12
    assert results[1][1] == pytest.approx(results[0][1], rel=1e-12)


def test_a_step_without_any_items_is_an_error_and_leaves_the_weights() -> None:
    """Catches an update by a sum over nothing."""
    data = [(torch.zeros(2, 2, dtype=torch.float64), torch.zeros(2))] * 2
    step, ours = step_on(data, model=Masked())
    before = weights(ours.model)
    with pytest.raises(DataError, match="have 0 items in total"):
        step.run(2, 0, None)
    assert is_bitwise_equal(weights(ours.model), before) and ours.state.is_inside_window


@pytest.mark.parametrize("num_micro_batches", [1, 2])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda loss: loss.detach(),
            "a loss that does not require grad: expected a loss computed from the model's parameters",
        ),
        (lambda loss: loss.detach().long(), "a loss of dtype torch.int64: expected a real floating-point scalar"),
        (lambda loss: loss + 0j, "a loss of dtype torch.complex64: expected a real"),
    ],
)
def test_a_loss_that_has_no_backward_is_refused_in_words(change: Any, message: str, num_micro_batches: int) -> None:
    """Catches an error of torch's that names no model, in steps of one micro-batch and of several."""

    class Wrong(Regression):
        def forward(self, batch: tuple[Tensor, Tensor]) -> Any:
            return change(super().forward(batch)["loss"])

    step, _ = step_on([batch[:2] for batch in zip(*rows(6).tensors, strict=True)], model=Wrong())
    with pytest.raises(TypeError, match=message):
        step.run(num_micro_batches, 0, None)


def test_a_second_signal_that_was_dropped_ends_the_step_at_its_next_micro_batch() -> None:
    """Catches a step of thousands of micro-batches that a user cannot end."""

    class Dropping(Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            ours.stopping.exit = SystemExit(143)

    step, ours = step_on(cut(2, 2, 2), Dropping())
    with pytest.raises(SystemExit):
        step.run(3, 0, None)
    assert ours.state.micro_batch_index == 1
