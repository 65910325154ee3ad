"""The training of ``experiment=gpt_accumulation`` as a hand-written PyTorch loop.

python -m examples.gpt_accumulation.by_hand
"""

import math
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from loopwright.data import stdlib_text
from loopwright.models import GPT


def train(
    max_steps: int = 300, eval_frequency: int = 100, batch_size: int = 2, grad_accum_steps: int = 4, width: int = 64
) -> dict[str, list[float]]:
    """Return the training loss of each step, and the loss of each validation."""
    data = stdlib_text(batch_size, window_length=128)
    batches = data.train.source(seed=0).read(0, 0)  # batches of pass 0 of a run with seed=0; one pass is enough

    torch.manual_seed(0)
    model = GPT(context_length=128, width=width, num_layers=2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.003, weight_decay=0.1)
    scheduler = LambdaLR(optimizer, lambda step: warmup_cosine(step, num_warmup=max_steps // 10, num_steps=max_steps))

    metrics: dict[str, list[float]] = {"train/loss": [], "val/loss": []}
    for step in range(1, max_steps + 1):
        step_loss = 0.0
        for _ in range(grad_accum_steps):
            loss = model(next(batches))["loss"] / grad_accum_steps
            loss.backward()
            step_loss += loss.item()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
        metrics["train/loss"].append(step_loss)
        if step % eval_frequency == 0:
            metrics["val/loss"].append(validate(model, data.val))
    return metrics


def warmup_cosine(step: int, num_warmup: int, num_steps: int) -> float:
    """Return the factor of the learning rate at a step: a linear warm-up, then half a period of a cosine."""
    if step < num_warmup:
        return (step + 1) / (num_warmup + 1)
    return (1 + math.cos(math.pi * (step - num_warmup) / (num_steps - num_warmup))) / 2


def validate(model: GPT, val: Any) -> float:
    """Return the mean loss over the bytes of the validation text, in nats."""
    total, num_bytes = 0.0, 0
    model.eval()
    with torch.no_grad():
        for batch in val:
            output = model(batch)
            total += output["loss"].item() * int(output["num_items"])
            num_bytes += int(output["num_items"])
    model.train()
    return total / num_bytes


if __name__ == "__main__":
    torch.set_num_threads(1)
    for batch_size, grad_accum_steps in [(2, 4), (8, 1)]:
        metrics = train(batch_size=batch_size, grad_accum_steps=grad_accum_steps)
        print(f"{grad_accum_steps} micro-batches of {batch_size}: val/loss {metrics['val/loss'][-1]:.7f}")
