"""One step: its micro-batches, the counters that it moves, and the values that it logs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from loopwright import Callback
from loopwright.data import as_source
from loopwright.engine.feed import Feed
from loopwright.engine.step import Step
from loopwright.errors import DataError
from tiny import Regression, batches, is_bitwise_equal, largest_difference, parts, rows, weights


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

    def __init__(self, count: Any = int) -> None:
        super().__init__()
        self.head = nn.Linear(2, 1).double()
        self.count = count

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Any]:
        features, mask = batch
        errors = self.head(features).squeeze(-1).square()
        return {"loss": (errors * mask).sum() / mask.sum(), "num_items": self.count(mask.sum())}


@pytest.mark.parametrize("count", [int, Tensor.detach], ids=["int", "tensor"])
def test_a_micro_batch_without_items_changes_nothing(count: Any) -> None:
    """Catches weights that become NaN by a micro-batch all of whose items are masked."""
    features = torch.randn(8, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mask = torch.tensor([1.0, 1, 0, 0, 1, 1, 1, 0])
    results = []
    for size in (8, 2):
        data = list(zip(features.split(size), mask.split(size), strict=True))
        torch.manual_seed(0)
        step, ours = step_on(data, model=Masked(count))
        logged: dict[str, Any] = {}
        step.run(8 // size, 0, logged.update)
        results.append((weights(ours.model), float(logged["loss"])))
    assert largest_difference(results[1][0], results[0][0]) < 1e-12
    assert results[1][1] == pytest.approx(results[0][1], rel=1e-12)


@pytest.mark.parametrize("count", [int, Tensor.detach], ids=["int", "tensor"])
@pytest.mark.parametrize("num_micro_batches", [1, 2])
def test_a_step_without_items_is_counted_and_updates_nothing(num_micro_batches: int, count: Any) -> None:
    """Catches an update from a loss over no items, and a NaN that is logged as the loss of the step."""
    hooks: list[str] = []

    class Watching(Callback):
        def on_before_backward(self, *_: Any) -> None:
            hooks.append("backward")

        def on_after_optimizer_step(self, *_: Any) -> None:
            hooks.append("step")

    data = [(torch.zeros(2, 2, dtype=torch.float64), torch.zeros(2))] * num_micro_batches
    step, ours = step_on(data, Watching(), model=Masked(count))
    ours.schedulers = [torch.optim.lr_scheduler.StepLR(ours.optimizer, 1)]
    before, logged = weights(ours.model), []
    step.run(num_micro_batches, 0, logged.append)
    assert is_bitwise_equal(weights(ours.model), before) and hooks == [] and logged == [{}]
    assert (ours.state.global_step, ours.state.is_inside_window) == (1, False)
    assert ours.schedulers[0].last_epoch == 0 and ours.log.latest == {"train/skipped_updates": 1}


class CountedLoss(nn.Module):
    """The mean over images of different sizes of a weight times the image's first value."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, batch: list[Tensor]) -> Tensor:
        return self.weight * torch.stack([image.flatten()[0] for image in batch]).mean()


@pytest.mark.parametrize("batch_sampler", [False, True])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_images_of_different_sizes_are_weighted_by_their_number(batch_sampler: bool, num_workers: int) -> None:
    """Catches a weight of 3, the channels of the first image: a mean of 9.75 instead of 6."""
    images = [torch.full((3, 2 + size, 2), float(value)) for size, value in enumerate((3, 3, 3, 15))]
    cut: Any = {"batch_size": 3}
    if batch_sampler:
        cut = {"batch_sampler": [[0, 1, 2], [3]]}
    step, _ = step_on(DataLoader(images, collate_fn=list, num_workers=num_workers, **cut), model=CountedLoss())
    logged: dict[str, Any] = {}
    step.run(2, 0, logged.update)
    assert logged == {"loss": 6.0}


def test_a_number_of_samples_that_is_unknown_is_asked_for_only_if_it_matters() -> None:
    """Catches a weight of 1 for every micro-batch, and a question where a step is one micro-batch."""
    data = [(torch.zeros(3, 2, dtype=torch.float64), torch.zeros(2, 2))] * 2

    class First(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(2, 1).double()

        def forward(self, batch: tuple[Tensor, Tensor]) -> Tensor:
            return self.head(batch[0]).mean()

    step, _ = step_on(data, model=First())
    assert step.run(1, 0, None) == 1
    step, _ = step_on(data, model=First())
    with pytest.raises(DataError, match=r"^num_items: .* return num_items from the model, together with the loss\.$"):
        step.run(2, 0, None)


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

    step, _ = step_on(batches(6, 1), model=Wrong())
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
