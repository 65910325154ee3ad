"""`TrainMean`: the means of the training metrics since the last log step."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn

from loopwright import Callback, Logger, TrainingLoop
from loopwright.checkpoint import read_checkpoint
from loopwright.data import as_source
from loopwright.engine.train_mean import TrainMean, TrainSums
from loopwright.engine.weighting import Weigher
from tiny import trainer

BATCH = torch.zeros(4, 2)


def mean_of(sums: TrainSums, data: Any = (BATCH,)) -> TrainMean:
    source = as_source(list(data), 0)
    return TrainMean(sums, source, Weigher(source, set()), torch.float64)


def means(*added: tuple[dict[str, Any], Any]) -> dict[str, float]:
    """Add pairs of outputs and number of items, and return the means."""
    sums = TrainSums()
    mean = mean_of(sums)
    for outputs, num_items in added:
        mean.add(outputs, BATCH, 0, num_items)
    return sums.take_means()


class Lines(Logger):
    """Keeps (step, name, value) of each logged metric."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, str, float]] = []

    def log_metrics(self, metrics: Any, step: int) -> None:
        self.lines += [(step, name, value) for name, value in metrics.items()]


class Numbered(nn.Module):
    """The loss of a batch is its mean; ``rare`` is its sum, where that is above 3; the number of items is given."""

    def __init__(self, is_counted: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.is_counted = is_counted

    def forward(self, batch: Tensor) -> dict[str, Any]:
        outputs: dict[str, Any] = {"loss": batch.mean() + 0 * self.weight, "rows": len(batch)}
        if self.is_counted:
            outputs["num_items"] = len(batch)
        return outputs | ({"rare": batch.sum()} if batch.sum() > 3 else {})


def fit(values: list[list[float]], *callbacks: Callback, fits: int = 1, **settings: Any) -> list[Any]:
    """Train on batches of these values, ``fits`` times, and return the logged lines."""
    lines = Lines()
    loop = TrainingLoop(num_epochs=1, grad_accum_steps=settings.pop("grad_accum_steps", 1))
    ours = trainer(loop, model=settings.pop("model", Numbered), loggers=[lines], callbacks=[*callbacks], **settings)
    for _ in range(fits):
        ours.fit([torch.tensor(each) for each in values])
    return lines.lines


VALUES = [[1.0, 2.0, 6.0], [4.0], [0.0], [2.0, 0.0], [1.0]]


@pytest.mark.parametrize("is_counted", [True, False])
@pytest.mark.parametrize(("grad_accum_steps", "every"), [(1, 2), (2, 1)])
def test_the_mean_is_over_all_items_since_the_last_log_line(
    grad_accum_steps: int, every: int, is_counted: bool
) -> None:
    """Catches the value of the log step alone, a mean of means, and a line that contains items of the one before."""
    logged = fit(
        VALUES,
        grad_accum_steps=grad_accum_steps,
        log_every_n_steps=every,
        model=lambda: Numbered(is_counted=is_counted),
    )
    first, second, last = every, 2 * every, 3 if grad_accum_steps == 2 else 5
    assert logged == [
        (first, "train/loss", 13 / 4), (first, "train/rows", 10 / 4), (first, "train/rare", 31 / 4),
        (second, "train/loss", 2 / 3), (second, "train/rows", 5 / 3),
        (last, "train/loss", 1.0), (last, "train/rows", 1.0),
    ]  # fmt: skip


def test_a_metric_is_averaged_over_the_micro_batches_that_have_it() -> None:
    assert fit(VALUES[1:4] + VALUES[:1], log_every_n_steps=9) == [
        (4, "train/loss", 15 / 7), (4, "train/rows", 15 / 7), (4, "train/rare", (4 + 3 * 9) / 4),
    ]  # fmt: skip


@pytest.mark.parametrize("num_items", [int, torch.tensor], ids=["number", "tensor"])
def test_a_micro_batch_without_items_adds_nothing(num_items: Any) -> None:
    """Catches NaN times 0, which is NaN. A tensor stands for a number of items on an accelerator."""
    nan = {"loss": torch.tensor(math.nan), "rate": math.nan, "empty": math.nan, "rows": numpy.array(math.nan)}
    one, three = ({"loss": torch.tensor(v), "rate": v, "rows": numpy.array(v)} for v in (3.0, 1.0))
    found = means((one, num_items(1)), (nan, num_items(0)), (three, num_items(3)))
    assert found == {"loss": 1.5, "rate": 1.5, "rows": 1.5}
    assert means((nan, num_items(0))) == {}


def test_a_batch_of_unknown_size_counts_as_one_item() -> None:
    sums = TrainSums()
    mean = mean_of(sums)
    for value in (1.0, 4.0):
        mean.add({"loss": torch.tensor(value)}, ["text"], 0, None)
    assert sums.take_means() == {"loss": 2.5}


class Own(Tensor):
    """A subclass of `Tensor`."""


def test_every_kind_of_metric_is_averaged() -> None:
    """Catches a number that needs a device, and a kind of metric that only validations log."""
    kinds: dict[str, Any] = {
        "number": float,
        "whole": int,
        "bool": bool,
        "numpy": numpy.float32,
        "array": numpy.array,
        "one": lambda value: torch.tensor([value]),
        "whole_tensor": lambda value: torch.tensor(int(value)),
        "half": lambda value: torch.tensor(value, dtype=torch.bfloat16),
        "own": lambda value: torch.tensor(value).as_subclass(Own),
    }
    added = [({name: make(value) for name, make in kinds.items()}, n) for value, n in ((0.0, 1), (1.0, 3))]
    assert means(*added) == dict.fromkeys(kinds, 0.75)
    logits = {"loss": torch.tensor(1.0), "logits": BATCH, "each": BATCH[:, 0], "name": "x", "none": None, 3: 2.0}
    assert means((logits, 2)) == {"loss": 1.0, "3": 2.0}
    assert means(({"a": 1.0}, 1), ({"a": torch.tensor(4.0)}, 1), ({"a": 1.0}, 2)) == {"a": 1.75}


def test_a_mean_of_one_micro_batch_is_its_value() -> None:
    """The golden losses are logged at every step, and their bits must not depend on the number of items."""
    values = torch.randn(200, generator=torch.Generator().manual_seed(0)).exp()
    for index, value in enumerate(values):
        assert means(({"loss": value}, 3 * index + 1)) == {"loss": value.item()}


def test_the_sums_keep_no_graph_and_change_no_output() -> None:
    sums = TrainSums()
    mean, loss = mean_of(sums), torch.ones((), dtype=torch.float64, requires_grad=True) * 2
    num_items = torch.ones((), dtype=torch.float64)
    for _ in range(2):
        mean.add({"loss": loss}, BATCH, 0, num_items)
    assert (loss.item(), num_items.item()) == (2, 1)
    assert not any(isinstance(each, Tensor) and each.requires_grad for each in sums.totals.values())
    sums.clear()
    mean.add({"loss": loss}, BATCH, 0, 1)
    total = sums.totals["loss"]
    assert isinstance(total, Tensor) and not total.requires_grad and total.dtype == torch.float64


def test_a_complex_metric_is_refused_by_its_name() -> None:
    with pytest.raises(TypeError, match=r"^train/phase is a tensor .*complex64: expected a real scalar"):
        means(({"phase": torch.tensor(1j)}, 1))


def test_a_skipped_update_is_a_part_of_the_mean() -> None:
    class Skipping(Callback):
        def on_before_optimizer_step(self, ours: Any, *_: Any) -> None:
            if ours.global_step == 1:
                ours.skip_update()

    logged = fit([[1.0], [4.0], [1.0]], Skipping(), log_every_n_steps=3)
    assert logged[:2] == [(2, "train/skipped_updates", 1.0), (3, "train/loss", 2.0)]


def test_a_second_fit_begins_anew() -> None:
    """Catches a line of the second fit that contains steps of the first, which was stopped between two log steps."""

    class Stopping(Callback):
        def on_train_batch_end(self, ours: Any, *_: Any) -> None:
            if ours.global_step == 1:
                ours.stop("test")

    logged = fit([[1.0], [7.0], [1.0], [1.0]], Stopping(), fits=2, log_every_n_steps=4)
    assert [line for line in logged if line[1] == "train/loss"] == [(4, "train/loss", 3.0), (5, "train/loss", 1.0)]


def test_micro_batches_that_are_read_again_are_counted_once(tmp_path: Path) -> None:
    """Catches a checkpoint that contains the first half of a step, which a resume repeats."""

    class Failing(Callback):
        def on_train_batch_start(self, ours: Any, model: nn.Module, batch: Any, batch_idx: int) -> None:
            if batch_idx == 3:
                raise RuntimeError("test")

    ours = trainer(TrainingLoop(num_epochs=1, grad_accum_steps=2), model=Numbered, callbacks=[Failing()])
    with pytest.raises(RuntimeError, match="test"):
        ours.fit([torch.tensor(each) for each in VALUES])
    ours.save_checkpoint(tmp_path / "mine")
    assert read_checkpoint(tmp_path / "mine").state["metrics"]["train_sums"] == {}


def test_a_state_is_restored_exactly() -> None:
    """Catches a restored sum that is added to in another order or dtype than the sum of a run that was not killed."""
    values = torch.randn(9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    straight, resumed = TrainSums(), TrainSums()
    for value in values:
        outputs = {"loss": value, "rate": value.item()}
        mean_of(straight).add(outputs, BATCH, 0, 3)
        state, resumed = resumed.state_dict(), TrainSums()
        resumed.load_state_dict(state)
        mean_of(resumed).add(outputs, BATCH, 0, 3)
    assert resumed.state_dict() == straight.state_dict()
    assert resumed.take_means() == straight.take_means() and resumed.state_dict() == {}


@pytest.mark.parametrize(
    "state",
    [
        *[{"loss": pair} for pair in (1.0, [1.0], [1.0, "2"], [True, 2.0], [1.0, -1.0], [1.0, math.inf])],
        {3: [1.0, 1.0]},
    ],
)
def test_an_invalid_state_is_refused(state: Any) -> None:
    with pytest.raises(ValueError, match=r"^train_sums\.(loss|3): expected a sum and a number of items"):
        TrainSums().load_state_dict(state)
