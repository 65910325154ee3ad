"""The training and the predictions of ``experiment=iris`` as a hand-written PyTorch loop.

python -m examples.table_to_predictions.by_hand
"""

import csv
import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from loopwright.data import Loader, TensorData

FOLDER = Path(__file__).parent
FEATURES = ("sepal_length", "sepal_width", "petal_length", "petal_width")
SPECIES = ("setosa", "versicolor", "virginica")


def read(name: str) -> tuple[Tensor, list[str]]:
    """Return the features of a table, float64, and the species of each row. Without a column species, return []."""
    with (FOLDER / name).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    numbers = torch.tensor([[float(row[feature]) for feature in FEATURES] for row in rows], dtype=torch.float64)
    return numbers, [row["species"] for row in rows if "species" in row]


def train(max_steps: int = 200, eval_frequency: int = 50) -> tuple[dict[str, list[float]], list[str]]:
    """Train and predict.

    Returns:
        A mapping and a list. The mapping contains the training loss of each step, and the loss and accuracy of each
        validation. The list contains the predicted species of each row of ``new_iris.csv``.
    """
    numbers, species = read("iris.csv")
    label = torch.tensor([SPECIES.index(name) for name in species])
    is_validation = torch.arange(len(label)) % 5 == 4  # every fifth row
    mean, deviation = numbers[~is_validation].mean(dim=0), numbers[~is_validation].std(dim=0, correction=0)
    features = ((numbers - mean) / deviation).float()
    rows = TensorData({"features": features[~is_validation], "label": label[~is_validation]})
    source = Loader(rows, batch_size=16, shuffle=True).source(seed=0)  # the order of a run with seed=0

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 3))
    loss_function = nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.003)
    scheduler = LambdaLR(optimizer, lambda step: (1 + math.cos(math.pi * step / max_steps)) / 2)

    metrics: dict[str, list[float]] = {"train/loss": [], "val/loss": [], "val/accuracy": []}
    step, pass_index = 0, 0
    while step < max_steps:
        for batch in source.read(pass_index, 0):
            optimizer.zero_grad()
            loss = loss_function(net(batch["features"]), batch["label"])
            loss.backward()
            optimizer.step()
            scheduler.step()
            step += 1
            metrics["train/loss"].append(loss.item())
            if step % eval_frequency == 0:
                with torch.no_grad():
                    output = net(features[is_validation])
                is_correct = output.argmax(dim=1) == label[is_validation]
                metrics["val/loss"].append(loss_function(output, label[is_validation]).item())
                metrics["val/accuracy"].append(is_correct.float().mean().item())
            if step == max_steps:
                break
        pass_index += 1

    new_numbers, _ = read("new_iris.csv")
    with torch.no_grad():
        output = net(((new_numbers - mean) / deviation).float())
    return metrics, [SPECIES[index] for index in output.argmax(dim=1).tolist()]


if __name__ == "__main__":
    torch.set_num_threads(1)
    metrics, predictions = train()
    for index, (loss, accuracy) in enumerate(zip(metrics["val/loss"], metrics["val/accuracy"], strict=True), start=1):
        print(f"step {50 * index}  val/loss {loss:.7f}  val/accuracy {accuracy:.4f}")
    print(*predictions, sep="\n")
