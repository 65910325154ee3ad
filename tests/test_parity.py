"""The trainer computes the same as a hand-written loop, for any cut of the data into micro-batches."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from loopwright import Precision, TrainingLoop, ValidationLoop
from tiny import Regression, adamw, batches, is_bitwise_equal, largest_difference, rows, sgd, trainer, weights


def test_a_fit_is_bitwise_equal_to_the_hand_written_loop() -> None:
    data = batches(12)
    torch.manual_seed(3)
    model = Regression(dropout=0.5)
    optimizer = adamw(model.parameters())
    for batch in data:
        optimizer.zero_grad()
        model(batch)["loss"].backward()
        optimizer.step()
    ours = trainer(
        TrainingLoop(num_epochs=1), model=lambda: Regression(dropout=0.5), optimizer=adamw, seed=3, log_every_n_steps=5
    )
    ours.fit(data)
    assert is_bitwise_equal(weights(ours), weights(model))


@pytest.mark.parametrize("precision", [Precision(max_gradient_norm=0.1), Precision(max_gradient_value=0.01)])
def test_clipping_equals_the_clipping_of_torch(precision: Precision) -> None:
    data = batches(6)
    model = Regression()
    ours = trainer(TrainingLoop(num_epochs=1), model=Regression, precision=precision)
    model.load_state_dict(ours.model.state_dict())
    optimizer = sgd(model.parameters())
    for batch in data:
        optimizer.zero_grad()
        model(batch)["loss"].backward()
        if precision.max_gradient_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), precision.max_gradient_norm)
        else:
            nn.utils.clip_grad_value_(model.parameters(), 0.01)
        optimizer.step()
    ours.fit(data)
    assert is_bitwise_equal(weights(ours), weights(model))


def test_gradients_are_clipped_once_per_step() -> None:
    data = rows(12, torch.float64)
    results = []
    for batch_size, grad_accum_steps in [(12, 1), (4, 3), (5, 3)]:
        ours = trainer(
            TrainingLoop(num_steps=4, grad_accum_steps=grad_accum_steps),
            model=lambda: Regression(torch.float64),
            precision=Precision(max_gradient_norm=0.05),
        )
        ours.fit(DataLoader(data, batch_size=batch_size))
        results.append(weights(ours))
    for cut in results[1:]:
        assert largest_difference(cut, results[0]) < 1e-12


@pytest.mark.parametrize("num_rows", [36, 41, 47])
@pytest.mark.parametrize("is_shuffled", [False, True])
def test_any_cut_of_twelve_rows_trains_the_same(num_rows: int, is_shuffled: bool) -> None:
    """With 41 and 47 rows, each of the 4 epochs ends with a smaller micro-batch, in a step of fewer micro-batches."""
    data = rows(num_rows, torch.float64)
    results = {}
    for batch_size, grad_accum_steps in [(12, 1), (6, 2), (4, 3), (3, 4), (2, 6)]:
        loader = DataLoader(data, batch_size=batch_size, shuffle=is_shuffled)
        loop = TrainingLoop(num_epochs=4, grad_accum_steps=grad_accum_steps)
        ours = trainer(loop, model=lambda: Regression(torch.float64))
        result = ours.fit(loader)
        assert result.global_step == 4 * -(-num_rows // 12)
        results[batch_size] = weights(ours)
    for cut in results.values():
        assert largest_difference(cut, results[12]) < 1e-12


def test_adamw_in_float64_agrees_to_1e_10() -> None:
    data = rows(41, torch.float64)
    results = []
    for batch_size, grad_accum_steps in [(12, 1), (3, 4)]:
        ours = trainer(
            TrainingLoop(num_epochs=4, grad_accum_steps=grad_accum_steps),
            model=lambda: Regression(torch.float64),
            optimizer=adamw,
        )
        ours.fit(DataLoader(data, batch_size=batch_size))
        results.append(weights(ours))
    assert largest_difference(results[1], results[0]) < 1e-10


class Tokens(nn.Module):
    """Returns the mean over the unmasked tokens of padded sequences, and their number."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 1).double()

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        features, mask = batch
        errors = self.head(features).squeeze(-1).square()
        num_items = mask.sum()
        return {"loss": (errors * mask).sum() / num_items, "num_items": num_items}


def test_a_step_over_unequal_numbers_of_items_equals_one_pass_over_the_joined_batch() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(12, 5, 3, generator=generator, dtype=torch.float64)
    lengths = torch.tensor([1, 5, 2, 2, 4, 1, 3, 5, 5, 1, 1, 2])
    mask = torch.arange(5).expand(12, 5) < lengths[:, None]
    results = []
    for size in (12, 4, 3, 1):
        data = list(zip(features.split(size), mask.split(size), strict=True))
        ours = trainer(TrainingLoop(num_steps=3, grad_accum_steps=12 // size, eval_frequency=1), model=Tokens)
        metrics = ours.fit(data, [data]).metrics
        results.append((weights(ours), metrics))
    for values, metrics in results:
        assert largest_difference(values, results[0][0]) < 1e-12
        assert metrics["val/loss"] == pytest.approx(results[0][1]["val/loss"], rel=1e-12)
        assert metrics["train/loss"] == pytest.approx(results[0][1]["train/loss"], rel=1e-12)


@pytest.mark.parametrize("num_rows", [1, 13, 50])
def test_a_validation_average_does_not_depend_on_the_batch_size(num_rows: int) -> None:
    data = rows(num_rows, torch.float64)
    ours = trainer(ValidationLoop(), model=lambda: Regression(torch.float64))
    whole = ours.validate(DataLoader(data, batch_size=num_rows))
    features, target = data.tensors
    with torch.no_grad():
        exact = (ours.model.layers(features) - target).square().mean().item()  # type: ignore[operator]
    assert whole["val/loss"] == pytest.approx(exact, rel=1e-12)
    for batch_size in range(1, 9):
        cut = ours.validate(DataLoader(data, batch_size=batch_size))
        assert cut == pytest.approx(whole, rel=1e-12)


def test_the_training_dataloader_keeps_its_position_and_validation_restarts() -> None:
    seen: list[float] = []
    validated: list[float] = []

    class Watching(Regression):
        def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
            (seen if self.training else validated).append(batch[0][0, 0].item())
            return super().forward(batch)

    train, val = batches(6), batches(3)
    trainer(TrainingLoop(num_steps=9, eval_frequency=2, eval_steps=2), model=Watching).fit(train, [val])
    first = [batch[0][0, 0].item() for batch in train]
    assert seen == first + first[:3]
    first_of_val = [batch[0][0, 0].item() for batch in val[:2]]
    assert validated == [first_of_val[0], *first_of_val * 5]  # the first batch is tried before the first step
