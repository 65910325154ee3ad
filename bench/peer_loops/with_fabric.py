"""The training with Lightning Fabric. The user writes the loop."""

from __future__ import annotations

from pathlib import Path

import torch
from lightning.fabric import Fabric
from torch import nn

from peer_loops.work import LOG_EVERY_STEPS, Run, Work, save_and_sync, validate, write_line


def prepare(work: Work, folder: Path) -> Run:
    """Build a `Fabric`, and set up the model, the optimizer and the dataloaders with it."""
    fabric = Fabric()
    plain = work.make_model()
    model, optimizer = fabric.setup(plain, work.make_optimizer(plain.parameters()))
    loader = fabric.setup_dataloaders(work.make_loader())
    val_loader = fabric.setup_dataloaders(work.make_val_loader()) if work.make_val_loader else None

    def run() -> nn.Module:
        for _ in range(work.num_epochs):
            for batch in loader:
                optimizer.zero_grad()
                loss = model(batch)
                fabric.backward(loss)
                optimizer.step()
        return plain

    def run_fully() -> nn.Module:
        num_steps, total = 0, torch.zeros(())
        optimizer.zero_grad()
        with open(folder / "metrics.jsonl", "a") as file:
            for index, batch in enumerate(loader, 1):
                loss = model(batch)
                fabric.backward(loss / work.grad_accum_steps)
                total += loss.detach()
                if index % work.grad_accum_steps:
                    continue
                optimizer.step()
                optimizer.zero_grad()
                num_steps += 1
                if num_steps % LOG_EVERY_STEPS == 0:
                    mean = total.item() / LOG_EVERY_STEPS / work.grad_accum_steps
                    write_line(file, {"step": num_steps, "train/loss": mean})
                    total.zero_()
                if num_steps % work.eval_every_steps == 0:
                    save_and_sync(plain, optimizer, folder / f"step_{num_steps}.safetensors")
                    model.eval()
                    write_line(file, {"step": num_steps, "val/loss": validate(model, val_loader)})
                    model.train()
        return plain

    return run if val_loader is None else run_fully
