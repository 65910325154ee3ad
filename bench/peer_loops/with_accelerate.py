"""The training with Accelerate. The user writes the loop."""

from __future__ import annotations

from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn

from peer_loops.work import LOG_EVERY_STEPS, Run, Work, save_and_sync, validate, write_line


def prepare(work: Work, folder: Path) -> Run:
    """Build an `Accelerator`, and prepare the model, the optimizer and the dataloaders with it."""
    accelerator = Accelerator(gradient_accumulation_steps=work.grad_accum_steps)
    plain = work.make_model()
    model, optimizer, loader = accelerator.prepare(plain, work.make_optimizer(plain.parameters()), work.make_loader())
    val_loader = accelerator.prepare(work.make_val_loader()) if work.make_val_loader else None

    def run() -> nn.Module:
        for _ in range(work.num_epochs):
            for batch in loader:
                optimizer.zero_grad()
                loss = model(batch)
                accelerator.backward(loss)
                optimizer.step()
        return plain

    def run_fully() -> nn.Module:
        num_steps, total = 0, torch.zeros(())
        with open(folder / "metrics.jsonl", "a") as file:
            for batch in loader:
                with accelerator.accumulate(model):
                    loss = model(batch)
                    accelerator.backward(loss)
                    total += loss.detach()
                    optimizer.step()
                    optimizer.zero_grad()
                if not accelerator.sync_gradients:
                    continue
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
