"""`Supervised` trains any module with any loss, by positions or names of the batch, and knows cross entropy."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, TensorDataset

from command import run_in
from loopwright import Trainer, TrainingLoop
from loopwright.errors import SettingError
from loopwright.models import Supervised
from loopwright.models.classification import classify, predict_classes
from tiny import is_bitwise_equal, sgd, weights

FEATURES = torch.randn(24, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.randint(3, (24,), generator=torch.Generator().manual_seed(1))


class RecordOps(TorchDispatchMode):
    """Records the operations of torch in ``names``."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


class Pair(nn.Module):
    """Takes two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.layer(left) + self.layer(right)


class Own(nn.Module):
    """Computes its loss itself if there are labels, as models of ``transformers`` do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Any]:
        logits = self.layer(x)
        loss = None if labels is None else functional.cross_entropy(logits, labels)
        return {"loss": loss, "logits": logits, "past": None}


def test_it_trains_as_a_loop_by_hand() -> None:
    torch.manual_seed(0)
    net, by_hand = nn.Linear(4, 3), nn.Linear(4, 3)
    by_hand.load_state_dict(net.state_dict())
    loader = DataLoader(TensorDataset(FEATURES, LABELS), batch_size=8)
    with Trainer(Supervised(net, nn.CrossEntropyLoss()), sgd, loop=TrainingLoop(num_epochs=2), device="cpu") as trainer:
        trainer.fit(loader)
    optimizer = sgd(by_hand.parameters())
    for _ in range(2):
        for features, labels in loader:
            functional.cross_entropy(by_hand(features), labels).backward()
            optimizer.step()
            optimizer.zero_grad()
    assert is_bitwise_equal(weights(net), weights(by_hand))


@pytest.mark.parametrize(
    ("inputs", "targets", "batch"),
    [
        (0, 1, (FEATURES, LABELS)),
        (0, 1, [FEATURES, LABELS]),
        (1, 0, (LABELS, FEATURES)),
        ("x", "y", {"x": FEATURES, "y": LABELS}),
        (["x"], ["y"], {"y": LABELS, "x": FEATURES}),
    ],
)
def test_inputs_and_targets_are_positions_or_names(inputs: Any, targets: Any, batch: Any) -> None:
    net = nn.Linear(4, 3)
    outputs = Supervised(net, functional.cross_entropy, inputs, targets)(batch)
    assert torch.equal(outputs["output"], net(FEATURES)) and outputs["target"] is LABELS
    assert torch.equal(outputs["loss"], functional.cross_entropy(net(FEATURES), LABELS))


def test_several_inputs_and_targets_are_passed_in_order() -> None:
    def loss(output: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        return (weight * (output - target).square()).mean()

    model = Supervised(Pair(), loss, inputs=("a", "b"), targets=("t", "w"))
    batch = {"a": FEATURES, "b": 2 * FEATURES, "t": torch.zeros(24, 1), "w": torch.ones(24, 1)}
    outputs = model(batch)
    assert torch.equal(outputs["loss"], model.net(FEATURES, 2 * FEATURES).square().mean())
    assert torch.equal(model.predict({"a": FEATURES, "b": FEATURES}), model.net(FEATURES, FEATURES))


@pytest.mark.parametrize("batch", [FEATURES, (FEATURES,), [FEATURES], {"x": FEATURES}])
def test_predict_needs_no_target(batch: Any) -> None:
    model = Supervised(nn.Linear(4, 3), nn.MSELoss(), "x" if isinstance(batch, dict) else 0)
    assert torch.equal(model.predict(batch), model.net(FEATURES))


CROSS_ENTROPIES = [
    nn.CrossEntropyLoss(),
    nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0]), label_smoothing=0.1),
    functional.cross_entropy,
    partial(functional.cross_entropy, label_smoothing=0.1),
]
IGNORING = [nn.CrossEntropyLoss(ignore_index=0), partial(functional.cross_entropy, ignore_index=-1)]


@pytest.mark.parametrize("loss", CROSS_ENTROPIES)
def test_cross_entropy_adds_the_accuracy_of_the_shipped_classifiers(loss: Any) -> None:
    net = nn.Linear(4, 3)
    outputs = Supervised(net, loss)((FEATURES, LABELS))
    expected = classify(net(FEATURES), LABELS)["accuracy"]
    assert torch.equal(outputs["accuracy"], expected) and not outputs["accuracy"].requires_grad
    assert 0 < expected < 1 and torch.equal(outputs["loss"], loss(net(FEATURES), LABELS))


@pytest.mark.parametrize("loss", [*CROSS_ENTROPIES, *IGNORING])
def test_cross_entropy_predicts_classes_and_probabilities(loss: Any) -> None:
    model = Supervised(nn.Linear(4, 3), loss)
    predictions, expected = model.predict((FEATURES,)), predict_classes(model.net(FEATURES))
    assert predictions.keys() == expected.keys()
    assert all(torch.equal(predictions[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("loss", "output", "target"),
    [
        *((loss, FEATURES, LABELS) for loss in IGNORING),
        (nn.CrossEntropyLoss(), FEATURES, torch.full((24, 4), 0.25)),  # probabilities of the classes
        (nn.CrossEntropyLoss(), FEATURES.reshape(8, 3, 4), torch.zeros(8, 4, dtype=torch.int64)),
        (nn.CrossEntropyLoss(), FEATURES[0], LABELS[0]),  # one sample without a batch dimension
        (nn.MSELoss(), FEATURES, FEATURES),
        (nn.NLLLoss(), FEATURES, LABELS),
    ],
)
def test_other_losses_and_shapes_have_no_accuracy(loss: Any, output: Tensor, target: Tensor) -> None:
    model = Supervised(nn.Identity(), loss)
    assert model((output, target)).keys() == {"loss", "output", "target"}


@pytest.mark.parametrize("output", [FEATURES.reshape(8, 3, 4), FEATURES[0]])
def test_outputs_of_other_shapes_are_predicted_as_they_are(output: Tensor) -> None:
    assert Supervised(nn.Identity(), nn.CrossEntropyLoss()).predict((output,)) is output


@pytest.mark.parametrize("loss", [nn.MSELoss(), nn.L1Loss(), nn.SmoothL1Loss(), nn.HuberLoss()])
def test_an_output_that_the_loss_would_broadcast_is_refused(loss: nn.Module) -> None:
    model = Supervised(nn.Linear(3, 1), loss)
    with pytest.raises(
        TypeError, match=r"output of shape \(4, 1\) and a target of shape \(4,\): expected equal shapes"
    ):
        model((torch.ones(4, 3), torch.ones(4)))
    assert model((torch.ones(4, 3), torch.ones(4, 1)))["loss"].ndim == 0


def test_several_targets_have_no_accuracy() -> None:
    model = Supervised(nn.Linear(4, 3), functional.cross_entropy, targets=[1, 2])
    outputs = model((FEATURES, LABELS, torch.ones(3)))
    assert outputs.keys() == {"loss", "output", "target"}


def test_a_classifier_calls_torch_as_often_as_a_shipped_classifier() -> None:
    net = nn.Linear(4, 3)
    with RecordOps() as ours:
        Supervised(net, nn.CrossEntropyLoss())((FEATURES, LABELS))
    with RecordOps() as shipped:
        classify(net(FEATURES), LABELS)
    assert ours.names == shipped.names and "aten.argmax.default" in ours.names


def test_without_a_loss_the_module_gets_the_batch_by_name() -> None:
    model = Supervised(Own())
    outputs = model({"x": FEATURES, "labels": LABELS})
    assert outputs.keys() == {"loss", "logits"}
    assert outputs["loss"] == functional.cross_entropy(outputs["logits"], LABELS)
    for batch in ({"x": FEATURES}, {"x": FEATURES, "labels": LABELS}):
        predictions = model.predict(batch)
        assert predictions.keys() == {"logits"} and torch.equal(predictions["logits"], outputs["logits"])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Supervised("net"), "net='net': expected a torch.nn.Module"),  # type: ignore[arg-type]
        (lambda: Supervised(Pair(), "mse"), "loss='mse': expected a function"),  # type: ignore[arg-type]
        (lambda: Supervised(Pair(), nn.MSELoss(reduction="sum")), "found reduction='sum'; use reduction=mean"),
        (lambda: Supervised(Pair(), nn.MSELoss(reduction="none")), "found reduction='none'"),
        (lambda: Supervised(Pair(), partial(functional.mse_loss, reduction="sum")), "found reduction='sum'"),
        (lambda: Supervised(Pair(), nn.MSELoss(), inputs=-1), "inputs=-1: expected a position"),
        (lambda: Supervised(Pair(), nn.MSELoss(), inputs=[]), r"inputs=\[\]: expected a position"),
        (lambda: Supervised(Pair(), nn.MSELoss(), targets=True), "targets=True: expected a position"),
    ],
)
def test_invalid_arguments_are_refused(make: Any, said: str) -> None:
    with pytest.raises(SettingError, match=said):
        make()


@pytest.mark.parametrize(
    ("model", "batch", "said"),
    [
        (
            Supervised(Own(), nn.MSELoss()),
            (FEATURES,),
            "targets=1: expected a position below 1, because the batch is a tuple of this length.",
        ),
        (Supervised(Own(), nn.MSELoss()), FEATURES, "targets=1: expected 0, because the batch is one object of class"),
        (Supervised(Own(), nn.MSELoss()), {"x": 1, "y": 2}, "targets=1: expected a name in the batch, which has x, y"),
        (Supervised(Own(), nn.MSELoss(), "imag", "y"), {"image": 1, "y": 2}, "inputs='imag': .* Did you mean image"),
        (Supervised(Own()), (FEATURES, LABELS), "loss: expected a loss function, because the batch is an .* tuple."),
        (Supervised(nn.Identity()), {"input": FEATURES}, "because net returned an object of class Tensor. Without"),
        (Supervised(Own()), {"x": FEATURES}, "because net returned no loss, but logits. Without a loss"),
    ],
)
def test_a_batch_without_these_parts_is_refused(model: Any, batch: Any, said: str) -> None:
    with pytest.raises(SettingError, match=said):
        model(batch)


def test_a_module_of_torch_trains_and_predicts_from_yaml_alone(tmp_path: Path) -> None:
    folder = tmp_path / "conf" / "model"
    folder.mkdir(parents=True)
    (folder / "plain.yaml").write_text(
        "_target_: loopwright.models.Supervised\n"
        "net: {_target_: torch.nn.Linear, in_features: 1, out_features: 2}\n"
        "loss: {_target_: torch.nn.CrossEntropyLoss}\n"
        "inputs: features\n"
        "targets: label\n"
    )
    rows = "".join(f"{size},{'Rome' if size > 5 else 'Oslo'}\n" for size in [0, 1, 2, 8, 9, 10] * 5)
    (tmp_path / "old.csv").write_text(f"size,city\n{rows}")
    (tmp_path / "new.csv").write_text("size\n1\n9\n")
    data = ["data=csv", "data.path=old.csv", "data.target=city", "optimizer.lr=0.1", "objective=val/accuracy"]
    words = ["--config-dir=conf", "model=plain", *data, "objective_mode=max", "loop.max_steps=20", "loggers=none"]
    answer = run_in(tmp_path, *words, "hydra.run.dir=run")
    assert (answer.code, answer.err) == (0, "")
    assert "val/accuracy 1" in answer.out
    assert run_in(tmp_path, "validate", "run").code == 0
    assert run_in(tmp_path, "predict", "run", "data.path=new.csv", "output=new_cities.csv").code == 0
    header, *cities = (tmp_path / "new_cities.csv").read_text().split()
    assert header == "row,prediction,probability_Oslo,probability_Rome"
    assert [row.split(",")[1] for row in cities] == ["Oslo", "Rome"]
    refused = run_in(tmp_path, *words, "model.inputs=featurs")
    assert refused.code != 0 and refused.err.startswith("model.inputs='featurs': ") and "features" in refused.err
