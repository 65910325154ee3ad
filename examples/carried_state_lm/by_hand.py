"""The training of ``experiment=carried_state_lm`` as a hand-written PyTorch loop.

python -m examples.carried_state_lm.by_hand
"""

import torch
from torch import nn
from torch.nn import functional
from torch.optim.lr_scheduler import ReduceLROnPlateau

from examples.carried_state_lm.columns import text_columns
from examples.carried_state_lm.lstm import CarriedLSTM


def train(
    num_epochs: int = 3, batch_size: int = 20, num_bytes: int = 64, max_bytes: int | None = None, width: int = 128
) -> dict[str, list[float]]:
    """Return the training loss of each step, and the validation loss after each epoch."""
    data = text_columns(batch_size, num_bytes, max_bytes)

    torch.manual_seed(0)
    model = CarriedLSTM(batch_size, width, num_layers=2)
    optimizer = torch.optim.SGD(model.parameters(), lr=20.0)
    scheduler = ReduceLROnPlateau(optimizer, factor=0.25, patience=0)
    zeros = torch.zeros(2, 2, batch_size, width)

    metrics: dict[str, list[float]] = {"train/loss": [], "val/loss": []}
    for _ in range(num_epochs):
        model.train()
        state = zeros
        for batch in data.train:
            optimizer.zero_grad()
            logits, state = model.logits(batch["inputs"], state.detach())
            loss = functional.cross_entropy(logits.flatten(0, 1), batch["targets"].flatten())
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.25)
            optimizer.step()
            metrics["train/loss"].append(loss.item())

        model.eval()
        val_state, val_losses = zeros, []
        with torch.no_grad():
            for batch in data.val:
                logits, val_state = model.logits(batch["inputs"], val_state)
                loss = functional.cross_entropy(logits.flatten(0, 1), batch["targets"].flatten())
                val_losses.append(loss.item())
        metrics["val/loss"].append(sum(val_losses) / len(val_losses))  # all batches have the same number of bytes
        scheduler.step(metrics["val/loss"][-1])
    return metrics


if __name__ == "__main__":
    torch.set_num_threads(1)
    for epoch, loss in enumerate(train()["val/loss"], start=1):
        print(f"epoch {epoch}  val/loss {loss:.7f}")
