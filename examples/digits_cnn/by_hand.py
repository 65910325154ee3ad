"""The training of ``experiment=digits_cnn`` as a hand-written PyTorch loop.

python -m examples.digits_cnn.by_hand
"""

import torch
from torch import nn
from torch.optim.lr_scheduler import StepLR

from examples.digits_cnn.net import Net
from loopwright.data import digits


def train(num_epochs: int = 5, batch_size: int = 32) -> dict[str, list[float]]:
    """Return the training loss of each step, and the validation loss and accuracy after each epoch."""
    data = digits(batch_size)
    source = data.train.source(seed=0)  # reads the batches in the order of a run with seed=0

    torch.manual_seed(0)
    net = Net()
    loss_function = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adadelta(net.parameters(), lr=1.0)
    scheduler = StepLR(optimizer, step_size=1, gamma=0.7)

    metrics: dict[str, list[float]] = {"train/loss": [], "val/loss": [], "val/accuracy": []}
    for epoch in range(num_epochs):
        net.train()
        for batch in source.read(epoch, 0):  # from the first batch of this pass
            optimizer.zero_grad()
            loss = loss_function(net(batch["image"]), batch["label"])
            loss.backward()
            optimizer.step()
            metrics["train/loss"].append(loss.item())
        scheduler.step()

        net.eval()
        total_loss, num_correct, num_images = 0.0, 0.0, 0
        with torch.no_grad():
            for batch in data.val:
                output, label = net(batch["image"]), batch["label"]
                total_loss += loss_function(output, label).item() * len(label)
                num_correct += (output.argmax(dim=1) == label).sum().item()
                num_images += len(label)
        metrics["val/loss"].append(total_loss / num_images)
        metrics["val/accuracy"].append(num_correct / num_images)
    return metrics


if __name__ == "__main__":
    torch.set_num_threads(1)
    result = train()
    for epoch, (loss, accuracy) in enumerate(zip(result["val/loss"], result["val/accuracy"], strict=True), start=1):
        print(f"epoch {epoch}  val/loss {loss:.7f}  val/accuracy {accuracy:.4f}")
