"""`Trace`: the callback that keeps what a run does at each step, or compares it with what another one kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from loopwright.checkpoint import plain_names
from loopwright.experiment.verify.compare import Difference, Leaves, first_difference, leaves
from loopwright.hooks import Callback

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from loopwright.trainer import Trainer

# (step under way, micro-batch in it, kind)
Moment = tuple[int, int, str]


class Trace(Callback):
    """Keeps each micro-batch, its loss, and the weights after each step; stops the fit after ``num_steps``.

    Args:
        num_steps: that are to be traced, counted from the beginning of the run.
        against: of the run to compare with, as this one goes along; the first difference stops it, too.
        with_metrics: whether the results of validations are kept as well.
    """

    def __init__(self, num_steps: int, against: Trace | None = None, *, with_metrics: bool = False) -> None:
        self._num_steps = num_steps
        self._against = against
        self._with_metrics = with_metrics
        self._micro_batch = 0
        self.moments: dict[Moment, Leaves] = {}
        self.difference: Difference | None = None
        self.num_steps_done = 0

    @property
    def num_compared(self) -> dict[str, int]:
        """Of each kind, what has been kept or compared."""
        found: dict[str, int] = {}
        for _, _, kind in self.moments:
            found[kind] = found.get(kind, 0) + 1
        return found

    def on_train_batch_start(self, trainer: Trainer, model: nn.Module, batch: Any, batch_idx: int) -> None:
        """Keep the micro-batch, as other callbacks have left it."""
        self._note(trainer, trainer.global_step + 1, "batch", leaves(batch))

    def on_train_batch_end(
        self, trainer: Trainer, model: nn.Module, outputs: Mapping[str, Any], batch: Any, batch_idx: int
    ) -> None:
        """Keep the loss and, at a step's end, the weights."""
        is_end = trainer.global_step > self.num_steps_done
        step = trainer.global_step if is_end else trainer.global_step + 1
        self._note(trainer, step, "loss", leaves(outputs["loss"]))
        self._micro_batch += 1
        if not is_end:
            return
        if self._with_metrics:
            metrics = {name: value for name, value in trainer.metrics.items() if not name.startswith("train/")}
            self._note(trainer, step, "metrics", metrics)
        self._note(trainer, step, "weights", leaves(plain_names(model)))
        self.num_steps_done, self._micro_batch = step, 0
        if step >= self._num_steps:
            trainer.stop("verified")

    def on_fit_start(self, trainer: Trainer, train_dataloader: Any, val_dataloader: Any, loop: Any) -> None:
        """A run that is resumed has done some steps."""
        self.num_steps_done = trainer.global_step

    def note_end(self, trainer: Trainer) -> None:
        """Keep, of a fit that has ended where it should, the state of the optimizer and of the callbacks."""
        if self._against is not None and self.num_steps_done != self._against.num_steps_done:
            return
        assert trainer.optimizer is not None, "it was fitted"
        state = {"optimizer": trainer.optimizer.state_dict()}
        for number, callback in enumerate(trainer.callbacks):
            state[f"callbacks.{number}.{type(callback).__name__}"] = callback.state_dict()
        self._note(trainer, self.num_steps_done, "state", leaves(state))

    def _note(self, trainer: Trainer, step: int, kind: str, found: Leaves) -> None:
        if self.difference is not None:
            return
        moment = (step, self._micro_batch, kind)
        if self._against is None:
            self.moments[moment] = found
            return
        self.moments[moment] = {}
        self.difference = first_difference(step, kind, self._against.moments.get(moment, {}), found)
        if self.difference is not None:
            trainer.stop("differs")


class Gradients(Callback):
    """Keeps the gradients of each step and the samples that they are of.

    Compared with another run's, each step is made with those of the other, so that all steps begin at the same weights
    and none is judged by what an earlier one did.

    Args:
        num_steps: that are traced.
        against: of the run to compare with.
    """

    def __init__(self, num_steps: int, against: Gradients | None = None) -> None:
        self._num_steps = num_steps
        self._against = against
        self._batches: list[Leaves] = []
        self.gradients: list[dict[str, Tensor]] = []
        self.samples: list[list[Leaves]] = []

    def on_train_batch_start(self, trainer: Trainer, model: nn.Module, batch: Any, batch_idx: int) -> None:
        """Keep the samples."""
        self._batches.append(leaves(batch))

    def on_before_optimizer_step(self, trainer: Trainer, model: nn.Module, optimizer: Optimizer) -> None:
        """Keep the gradients, weighted and not yet clipped."""
        step = len(self.gradients)
        parameters = trainer.parameters
        self.gradients.append(
            {name: each.grad.detach().cpu().clone() for name, each in parameters.items() if each.grad is not None}
        )
        self.samples.append(self._batches)
        self._batches = []
        if self._against is not None and step < len(self._against.gradients):
            for name, gradient in self._against.gradients[step].items():
                own = parameters[name].grad
                if own is not None:
                    own.copy_(gradient)
        if len(self.gradients) >= self._num_steps:
            trainer.stop("verified")
