"""The training with ignite: engines with handlers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.metrics import Average
from torch import Tensor, nn

from peer_loops.work import LOG_EVERY_STEPS, Run, Work, save_and_sync, write_line


def prepare(work: Work, folder: Path) -> Run:
    """Build an `Engine` for training. The full run has handlers, and an `Engine` for validation."""
    model = work.make_model()
    optimizer = work.make_optimizer(model.parameters())
    loader, val_loader = work.make_loader(), work.make_val_loader and work.make_val_loader()

    def update(engine: Engine, batch: Any) -> Tensor:
        model.train()
        optimizer.zero_grad()
        loss: Tensor = model(batch)
        loss.backward()
        optimizer.step()
        return loss.detach()

    def accumulate(engine: Engine, batch: Any) -> Tensor:
        if (engine.state.iteration - 1) % work.grad_accum_steps == 0:
            optimizer.zero_grad()
        model.train()
        loss: Tensor = model(batch)
        (loss / work.grad_accum_steps).backward()
        if engine.state.iteration % work.grad_accum_steps == 0:
            optimizer.step()
        return loss.detach()

    trainer = Engine(update if val_loader is None else accumulate)

    def run() -> nn.Module:
        trainer.run(loader, max_epochs=work.num_epochs)
        return model

    def run_fully() -> nn.Module:
        with open(folder / "metrics.jsonl", "a") as file:
            add_handlers(file)
            return run()

    def add_handlers(file: Any) -> None:
        def evaluate(engine: Engine, batch: Any) -> Tensor:
            model.eval()
            with torch.no_grad():
                loss: Tensor = model(batch)
            return loss

        evaluator = Engine(evaluate)
        Average().attach(evaluator, "loss")
        total = torch.zeros(())

        @trainer.on(Events.ITERATION_COMPLETED)
        def add(engine: Engine) -> None:
            total.add_(engine.state.output)

        @trainer.on(Events.ITERATION_COMPLETED(every=LOG_EVERY_STEPS * work.grad_accum_steps))
        def log(engine: Engine) -> None:
            step, mean = engine.state.iteration // work.grad_accum_steps, total.item() / LOG_EVERY_STEPS
            write_line(file, {"step": step, "train/loss": mean / work.grad_accum_steps})
            total.zero_()

        @trainer.on(Events.ITERATION_COMPLETED(every=work.eval_every_steps * work.grad_accum_steps))
        def save_and_validate(engine: Engine) -> None:
            step = engine.state.iteration // work.grad_accum_steps
            save_and_sync(model, optimizer, folder / f"step_{step}.safetensors")
            evaluator.run(val_loader)
            write_line(file, {"step": step, "val/loss": float(evaluator.state.metrics["loss"])})

    return run if val_loader is None else run_fully
