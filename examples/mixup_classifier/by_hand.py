"""The training of ``experiment=mixup_classifier`` as a hand-written PyTorch loop.

python -m examples.mixup_classifier.by_hand
"""

import copy
import math
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from examples.mixup_classifier.mixup import mixed_digits


def train(num_epochs: int = 8, batch_size: int = 32) -> dict[str, list[float]]:
    """Return the training loss of each step, and the validation loss and accuracy after every second epoch."""
    data = mixed_digits(batch_size)
    source = data.train.source(seed=0)  # reads the batches in the order of a run with seed=0

    torch.manual_seed(0)
    net = build_net()
    averaged_net = copy.deepcopy(net)
    loss_function = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    num_warmup, num_steps = len(data.train), num_epochs * len(data.train)
    scheduler = LambdaLR(optimizer, lambda step: warmup_cosine(step, num_warmup, num_steps))

    metrics: dict[str, list[float]] = {"train/loss": [], "val/loss": [], "val/accuracy": []}
    for epoch in range(num_epochs):
        net.train()
        for batch in source.read(epoch, 0):  # from the first batch of this pass
            optimizer.zero_grad()
            loss = loss_function(net(batch["image"]), batch["label"])
            loss.backward()
            optimizer.step()
            scheduler.step()
            update_average(averaged_net, net, decay=0.98)
            metrics["train/loss"].append(loss.item())
        if epoch % 2 == 1:
            val_loss, accuracy = validate(averaged_net, data.val)
            metrics["val/loss"].append(val_loss)
            metrics["val/accuracy"].append(accuracy)
    return metrics


def build_net() -> nn.Module:
    """Return the network of ``conf/model/small_convnet.yaml``."""
    return nn.Sequential(
        nn.Conv2d(1, 32, kernel_size=3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, kernel_size=3, padding=1),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def warmup_cosine(step: int, num_warmup: int, num_steps: int) -> float:
    """Return the factor of the learning rate at a step: a linear warm-up, then half a period of a cosine."""
    if step < num_warmup:
        return (step + 1) / (num_warmup + 1)
    return (1 + math.cos(math.pi * (step - num_warmup) / (num_steps - num_warmup))) / 2


@torch.no_grad()
def update_average(averaged_net: nn.Module, net: nn.Module, decay: float) -> None:
    """Update the averages of the parameters, and copy the statistics of the batch norms."""
    for average, parameter in zip(averaged_net.parameters(), net.parameters(), strict=True):
        average.lerp_(parameter, 1 - decay)
    for copied, buffer in zip(averaged_net.buffers(), net.buffers(), strict=True):
        copied.copy_(buffer)


@torch.no_grad()
def validate(net: nn.Module, val: Any) -> tuple[float, float]:
    """Return the mean loss and the accuracy over the validation images."""
    loss_function = nn.CrossEntropyLoss()
    total_loss, num_correct, num_images = 0.0, 0.0, 0
    net.eval()
    for batch in val:
        output, label = net(batch["image"]), batch["label"]
        total_loss += loss_function(output, label).item() * len(label)
        num_correct += (output.argmax(dim=1) == label).sum().item()
        num_images += len(label)
    return total_loss / num_images, num_correct / num_images


if __name__ == "__main__":
    torch.set_num_threads(1)
    result = train()
    for index, (loss, accuracy) in enumerate(zip(result["val/loss"], result["val/accuracy"], strict=True)):
        print(f"epoch {2 * index + 2}  val/loss {loss:.7f}  val/accuracy {accuracy:.4f}")
