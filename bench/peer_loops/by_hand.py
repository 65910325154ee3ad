"""The hand-written loop."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from peer_loops.work import LOG_EVERY_STEPS, Run, Work, save_and_sync, validate, write_line


def prepare(work: Work, folder: Path) -> Run:
    """Build the objects of a training by hand."""
    model = work.make_model()
    optimizer = work.make_optimizer(model.parameters())
    loader, val_loader = work.make_loader(), work.make_val_loader and work.make_val_loader()

    def run() -> nn.Module:
        for _ in range(work.num_epochs):
            for batch in loader:
                optimizer.zero_grad()
                loss = model(batch)
                loss.backward()
                optimizer.step()
        return model

    def run_fully() -> nn.Module:
        num_steps, total = 0, torch.zeros(())
        optimizer.zero_grad()
        with open(folder / "metrics.jsonl", "a") as file:
            for index, batch in enumerate(loader, 1):
                loss = model(batch)
                (loss / work.grad_accum_steps).backward()
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
                    save_and_sync(model, optimizer, folder / f"step_{num_steps}.safetensors")
                    model.eval()
                    write_line(file, {"step": num_steps, "val/loss": validate(model, val_loader)})
                    model.train()
        return model

    return run if val_loader is None else run_fully
