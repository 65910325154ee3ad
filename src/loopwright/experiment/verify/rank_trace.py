"""`RankTrace`: records the steps of one process, and the files in which the processes of `verify_ranks` pass traces.

Tensors are written to safetensors files, and other values to JSON files.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from loopwright.checkpoint import weights_digest
from loopwright.experiment.verify.equality import Leaves, leaves
from loopwright.experiment.verify.trace import Gradients
from loopwright.loop import LoopCallback

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from loopwright.trainer import Trainer

_FIRST = "one-process.safetensors"

# Step (from 1), and index of the micro-batch since the last validation.
Place = tuple[int, int]


class RankTrace(Gradients):
    """Records gradients and rows like `Gradients`, and also metrics and the final weights.

    Args:
        num_steps: number of steps to record.
        against: recorded gradients of the run in one process, with which this run updates its weights; None: this run
            is the run in one process.

    Attributes:
        rows: leaves of the rows of this process in each micro-batch.
        metrics: all metrics after each step and its validations, except for the last step.
        weights: parameters after the last step to compare.
        digest: SHA-256 of these parameters.
    """

    def __init__(self, num_steps: int, against: Gradients | None = None) -> None:
        super().__init__(num_steps, against)
        self.rows: dict[Place, Leaves] = {}
        self.metrics: list[dict[str, float]] = []
        self.weights: dict[str, Tensor] = {}
        self.digest = ""

    def on_train_batch_start(self, trainer: Trainer, model: nn.Module, batch: Any, batch_idx: int) -> None:
        """Record the rows of this process. A process without a row receives another row, which is not recorded."""
        super().on_train_batch_start(trainer, model, batch, batch_idx)
        if not trainer.is_padding:
            self.rows[trainer.global_step + 1, batch_idx] = {
                name: _plain(value) for name, value in leaves(batch).items()
            }

    def on_before_forward(self, trainer: Trainer, model: nn.Module, batch: Any, args: Any, kwargs: Any) -> None:
        """Record the states of the random generators and of the model, but not in validations."""
        if model.training:
            super().on_before_forward(trainer, model, batch, args, kwargs)

    def on_after_forward(self, trainer: Trainer, model: nn.Module, outputs: Any, batch: Any) -> None:
        """Record what the forward has changed, but not in validations."""
        if model.training:
            super().on_after_forward(trainer, model, outputs, batch)

    def on_before_optimizer_step(self, trainer: Trainer, model: nn.Module, optimizer: Optimizer) -> None:
        """Record the metrics of the step before, and the gradients of this step."""
        if self.gradients:
            self.metrics.append(dict(trainer.metrics))
        super().on_before_optimizer_step(trainer, model, optimizer)

    def on_before_optimizer_zero_grad(self, trainer: Trainer, model: nn.Module, optimizer: Optimizer) -> None:
        """Record the weights. Several processes train one step more after the last step to compare."""
        if len(self.gradients) == self._num_steps:
            self._record_weights(trainer)

    def on_fit_end(self, trainer: Trainer, loop: LoopCallback) -> None:
        """Record the weights of a fit that is shorter than the steps to compare."""
        if len(self.gradients) < self._num_steps:
            self._record_weights(trainer)

    def _record_weights(self, trainer: Trainer) -> None:
        self.weights = {name: each.detach().cpu().clone() for name, each in trainer.parameters.items()}
        self.digest = weights_digest(self.weights)


def _plain(value: Any) -> Any:
    """Return a value that JSON can contain, or a tensor. Of other objects, only the class is compared."""
    if isinstance(value, Tensor | str | bool | int | float | None):
        return value
    return f"an object of class {type(value).__name__}"


def write_gradients(folder: Path, trace: RankTrace) -> None:
    """Write the gradients of the run in one process."""
    save_file(_flat(trace.gradients), folder / _FIRST)


def read_gradients(folder: Path) -> Gradients:
    """Return the gradients that `write_gradients` wrote."""
    found = Gradients(0)
    found.gradients = _by_step(load_file(folder / _FIRST))
    return found


def write_trace(folder: Path, rank: int, trace: RankTrace) -> None:
    """Write the trace of one of several processes. Only process 0 writes the gradients and the weights."""
    tensors, plain = {}, []
    for (step, index), found in trace.rows.items():
        rest = {name: value for name, value in found.items() if not isinstance(value, Tensor)}
        plain.append([step, index, rest])
        for name, value in found.items():
            if isinstance(value, Tensor):
                tensors[f"{step}/{index}/{name}"] = value.contiguous()
    save_file(tensors, folder / f"rows-{rank}.safetensors")
    if not rank:
        save_file(_flat(trace.gradients), folder / "gradients.safetensors")
        save_file({name: each.contiguous() for name, each in trace.weights.items()}, folder / "weights.safetensors")
    values = {"rows": plain, "metrics": trace.metrics, "digest": trace.digest}
    (folder / f"trace-{rank}.json").write_text(json.dumps(values), encoding="utf-8")


def read_trace(folder: Path, rank: int) -> RankTrace:
    """Return the trace that `write_trace` wrote."""
    trace = RankTrace(0)
    values = json.loads((folder / f"trace-{rank}.json").read_text(encoding="utf-8"))
    trace.metrics, trace.digest = values["metrics"], values["digest"]
    rows: dict[Place, dict[str, Any]] = {(step, index): found for step, index, found in values["rows"]}
    for path, value in load_file(folder / f"rows-{rank}.safetensors").items():
        step, index, name = path.split("/", 2)
        rows[int(step), int(index)][name] = value
    trace.rows = {**rows}
    if not rank:
        trace.gradients = _by_step(load_file(folder / "gradients.safetensors"))
        trace.weights = load_file(folder / "weights.safetensors")
    return trace


def _flat(gradients: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {
        f"{index}/{name}": each.contiguous() for index, found in enumerate(gradients) for name, each in found.items()
    }


def _by_step(tensors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    found: dict[int, dict[str, Tensor]] = {}
    for path, tensor in tensors.items():
        index, _, name = path.partition("/")
        found.setdefault(int(index), {})[name] = tensor
    return [found[index] for index in sorted(found)]
