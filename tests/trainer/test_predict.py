"""`Trainer.predict`: which rows, in which order, with which weights, and what a model may return."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from loopwright import Callback, Checkpointing, Trainer, TrainingLoop
from loopwright.callbacks import ExponentialMovingAverage
from loopwright.data import Loader
from loopwright.errors import DataError, SettingError
from tiny import Regression, batches, is_bitwise_equal, rows, sgd, trainer, weights

FEATURES = rows(50).tensors[0]


class Predictor(Regression):
    """Predicts from the features alone, and drops values in training mode."""

    def __init__(self) -> None:
        super().__init__(dropout=0.5)

    def predict(self, batch: tuple[Tensor, ...]) -> Tensor:
        prediction: Tensor = self.layers(batch[0])
        return prediction


class Numbers(IterableDataset[Tensor]):
    """A stream of 50 rows, which has no length."""

    def __iter__(self) -> Iterator[Any]:
        return iter(zip(*rows(50).tensors, strict=True))


def expected(model: nn.Module) -> Any:
    """The predictions for all rows in the order of the data set, in evaluation mode."""
    with torch.no_grad():
        return model.eval().layers(FEATURES).numpy()


@pytest.mark.parametrize(
    "dataloader",
    [
        Loader(rows(50), batch_size=8),
        Loader(rows(50), batch_size=8, shuffle=True, drop_last=True),
        DataLoader(rows(50), batch_size=8, shuffle=True, drop_last=True),
        DataLoader(rows(50), batch_size=8, shuffle=True, num_workers=2),
        DataLoader(TensorDataset(FEATURES), batch_size=8),
        DataLoader(Numbers(), batch_size=8),
        [(part,) for part in FEATURES.split(8)],
    ],
    ids=["own", "own shuffled", "torch shuffled", "workers", "without targets", "stream", "list"],
)
def test_every_row_is_predicted_in_the_order_of_the_data_set(dataloader: Any) -> None:
    with trainer(model=Predictor) as fitted:
        predictions = fitted.predict(dataloader)
        assert predictions.keys() == {"prediction"}
        assert predictions["prediction"].shape == (50, 1)
        numpy.testing.assert_allclose(predictions["prediction"], expected(fitted.model), rtol=1e-6)


def test_predicting_changes_neither_the_training_nor_the_modes() -> None:
    def fit(*, predicts: bool) -> dict[str, Tensor]:
        with trainer(TrainingLoop(num_steps=4), model=Predictor) as each:
            each.fit(batches())
            if predicts:
                each.model.layers[2].eval()
                each.predict(Loader(rows(50), batch_size=8))
                assert not each.model.layers[2].training and each.model.layers[0].training == each.model.training
                each.model.layers[2].train()
            each.fit(batches())
            return weights(each)

    assert is_bitwise_equal(fit(predicts=False), fit(predicts=True))


class Named(Regression):
    """Returns what the test gives it."""

    def __init__(self, returned: Any) -> None:
        super().__init__()
        self._returned = returned

    def predict(self, batch: Any) -> Any:
        return self._returned


def test_a_mapping_gives_an_array_for_each_name() -> None:
    returned = {"a": torch.arange(4), "b": torch.full((4, 2, 3), 0.5, dtype=torch.bfloat16)}
    with trainer(model=Named(returned)) as each:
        predictions = each.predict(batches(num_batches=3))
    assert predictions["a"].tolist() == [0, 1, 2, 3] * 3
    assert predictions["b"].shape == (12, 2, 3) and predictions["b"].dtype == numpy.float32


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (None, "predict returned an object of class NoneType: expected a tensor, or a mapping of tensors"),
        (torch.tensor(1.0), r"predict returned prediction of shape \(\): expected"),
        ({"a": 3}, "predict returned a of class int: expected"),
        ({}, "predict returned no tensor for a batch of 4 samples: expected"),
        (torch.zeros(3, 2), r"predict returned prediction \(3, 2\) for a batch of 4 samples: expected"),
        ({"a": torch.zeros(4), "b": torch.zeros(3)}, r"predict returned a \(4,\), b \(3,\) for a batch of 4 samples"),
    ],
)
def test_other_predictions_are_refused(returned: Any, said: str) -> None:
    with trainer(model=Named(returned)) as each, pytest.raises(TypeError, match=said):
        each.predict(batches())


class WithOutputs(Regression):
    """Has no ``predict``; the outputs of ``forward`` contain rows."""

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        features, target = batch
        outputs = self.layers(features)
        return {"loss": (outputs - target).square().mean(), "outputs": outputs, "scale": torch.ones(3)}


def test_without_predict_the_outputs_with_one_row_per_sample_are_returned() -> None:
    with trainer(model=WithOutputs) as each:
        predictions = each.predict(DataLoader(rows(50), batch_size=8))
        numpy.testing.assert_allclose(predictions["outputs"], expected(each.model), rtol=1e-6)
    assert predictions.keys() == {"outputs"}


def test_without_rows_the_message_says_to_write_predict() -> None:
    with (
        trainer() as each,
        pytest.raises(TypeError, match=r"returned no tensor with one row per sample: write predict\("),
    ):
        each.predict(batches())


def test_a_model_that_needs_a_target_is_told_to_write_predict() -> None:
    with trainer(model=WithOutputs) as each, pytest.raises(ValueError, match="unpack") as raised:
        each.predict(DataLoader(TensorDataset(FEATURES), batch_size=8))
    assert any("write a method predict(batch) in the model" in note for note in raised.value.__notes__)


def test_rows_of_two_shapes_are_refused() -> None:
    ragged = [(torch.zeros(2, 4),), (torch.zeros(2, 5),)]

    class Copies(Regression):
        def predict(self, batch: tuple[Tensor]) -> Tensor:
            return batch[0]

    with (
        trainer(model=Copies) as each,
        pytest.raises(DataError, match=r"rows of shape \(5,\) in batch 1, and of shape \(4,\)"),
    ):
        each.predict(ragged)


@pytest.mark.parametrize("empty", [iter([]), DataLoader(rows(0), batch_size=8)])
def test_an_empty_dataloader_is_refused(empty: Any) -> None:
    with trainer(model=Predictor) as each, pytest.raises(DataError, match="the dataloader is empty"):
        each.predict(empty)


def test_several_dataloaders_are_refused() -> None:
    with trainer(model=Predictor) as each, pytest.raises(SettingError, match=r"dataloader.*expected one dataloader"):
        each.predict({"a": batches(), "b": batches()})


def test_the_weights_are_those_that_a_validation_uses(tmp_path: Path) -> None:
    average = ExponentialMovingAverage(decay=0.5)
    settings: dict[str, Any] = {"model": Predictor, "run_dir": tmp_path, "callbacks": [average]}
    with trainer(TrainingLoop(num_steps=6), checkpoint=Checkpointing(every_n_steps=3), **settings) as each:
        each.fit(batches())
        trained, data = weights(each), DataLoader(rows(50), batch_size=8)
        averaged = each.predict(data)["prediction"]
        assert not numpy.allclose(averaged, expected(each.model))
        assert numpy.array_equal(averaged, each.predict(data, ckpt_path="last")["prediction"])
        assert not numpy.array_equal(averaged, each.predict(data, tmp_path / "checkpoints/step_00000003")["prediction"])
        assert is_bitwise_equal(weights(each), trained)


class Doubling(Callback):
    """Doubles the features before each forward, and notes the hooks that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.called: list[str] = []

    def on_before_forward(self, trainer: Trainer, model: nn.Module, batch: Any, args: Any, kwargs: Any) -> None:
        args[0] = (2 * batch[0], *batch[1:])

    def on_after_forward(self, trainer: Trainer, model: nn.Module, outputs: Any, batch: Any) -> None:
        self.called.append("on_after_forward")

    def on_validate_start(self, trainer: Trainer, model: nn.Module, val_dataloader: Any, loop: Any) -> None:
        self.called.append("on_validate_start")


def test_hooks_that_change_the_batch_are_called_and_no_others() -> None:
    with trainer(model=Predictor, callbacks=[doubling := Doubling()]) as each:
        predictions = each.predict(DataLoader(rows(50), batch_size=8))["prediction"]
        with torch.no_grad():
            doubled = each.model.eval().layers(2 * FEATURES).numpy()
    numpy.testing.assert_allclose(predictions, doubled, rtol=1e-6)
    assert doubling.called == []


def test_a_closed_trainer_does_not_predict() -> None:
    each = Trainer(Predictor, sgd, device="cpu")
    each.close()
    with pytest.raises(RuntimeError, match="closed"):
        each.predict(batches())
