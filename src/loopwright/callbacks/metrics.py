"""`Metrics`: computes metrics of torchmetrics in training and on each validation set."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from loopwright.errors import SettingError, did_you_mean, refuse, refuse_type
from loopwright.hooks import Callback

if TYPE_CHECKING:
    from loopwright.loop import LoopCallback
    from loopwright.trainer import Trainer

_METHODS = ("update", "compute", "reset", "persistent")  # methods of a metric that an nn.Module does not have


class Metrics(Callback):
    """Updates metrics of torchmetrics with every batch, and logs their values as ``train/<name>`` and ``val/<name>``.

    This callback copies each metric for training and for each validation set. A validation metric is computed over the
    whole validation set, not averaged over batches. A training metric is computed at log steps, over the micro-batches
    since the previous log step. Checkpoints contain the accumulated values of the training metrics. If a metric
    computes a mapping, the entries of the mapping are logged as ``<name>_<key>``. If several processes train together,
    torchmetrics computes each metric from the rows of all processes.

    A metric that checks its inputs may wait for the device at every batch. To avoid the wait, create the metric with
    ``validate_args=False``.

    Args:
        metrics: mapping from names to objects of ``torchmetrics.Metric`` (``pip install 'loopwright[metrics]'``). These
            objects are copied and not changed.
        inputs: keys of the values that each metric's ``update`` receives, in order. A string is the name of a model
            output. If the model has no output of this name, the string is a key of a batch that is a mapping. An
            integer is an index, from 0, into a batch that is a list or tuple.

    Raises:
        SettingError: if an argument is invalid. During a run, if an input is missing, if a model output has the name of
            a metric, or if a metric computes a value that is not a single number.
    """

    def __init__(self, metrics: Mapping[str, Any], inputs: Sequence[str | int] = ("logits", "target")) -> None:
        if not isinstance(metrics, Mapping) or not metrics:
            raise refuse_type("metrics", metrics, "a mapping of names to metrics of torchmetrics")
        for name, metric in metrics.items():
            if not isinstance(metric, nn.Module) or not all(hasattr(metric, method) for method in _METHODS):
                raise refuse_type(f"metrics.{name}", metric, "a torchmetrics.Metric")
        if isinstance(inputs, str) or not all(isinstance(key, str | int) for key in inputs) or not inputs:
            raise refuse("inputs", inputs, "names such as [logits, target]")
        self._prototypes = dict(metrics)
        self._inputs = tuple(inputs)
        self._training = _Meters(self._prototypes)
        self._validation: dict[str, _Meters] = {}
        self._step = 0

    def logs(self, metric: str) -> bool:
        """Return whether this callback may log ``metric``. Names in the argument ``metrics`` may contain slashes."""
        return any(f"/{name}" in metric for name in self._prototypes)

    def state_dict(self) -> dict[str, Any]:
        """Return the values that the training metrics have accumulated since the previous log step."""
        return self._training.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the accumulated values of the training metrics."""
        self._training.load_state_dict(state_dict)

    def forget_state(self) -> None:
        """Reset the training metrics. This method makes the callback a `HasStatePerProcess`."""
        self._training.reset()

    def on_train_start(
        self, trainer: Trainer, model: nn.Module, train_dataloader: Any, loop: LoopCallback, loop_idx: int
    ) -> None:
        """Store the number of completed steps. When this number changes, `on_train_batch_end` detects a step's end."""
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, model: nn.Module, outputs: dict[str, Any], batch: Any, batch_idx: int
    ) -> None:
        """Update the training metrics. At the end of a log step, log and reset the training metrics."""
        if not trainer.is_padding:
            self._training.update(self._read(outputs, batch))
        step, is_same = trainer.global_step, trainer.global_step == self._step
        self._step = step
        if is_same or (step % trainer.log_every_n_steps and (trainer.plan is None or step != trainer.plan.stop_step)):
            return
        trainer.log_metrics(**self._training.compute("train", trainer.device))
        self._training.reset()

    def on_validate_start(self, trainer: Trainer, model: nn.Module, val_dataloader: Any, loop: LoopCallback) -> None:
        """Reset the metrics of this validation set."""
        self._of(trainer).reset()

    def on_validate_batch_end(
        self, trainer: Trainer, model: nn.Module, outputs: dict[str, Any], batch: Any, batch_idx: int
    ) -> None:
        """Update the metrics of this validation set."""
        self._of(trainer).update(self._read(outputs, batch))

    def on_validate_end(self, trainer: Trainer, model: nn.Module, loop: LoopCallback) -> None:
        """Log and reset the metrics of this validation set."""
        meters = self._of(trainer)
        trainer.log_metrics(**meters.compute(str(trainer.validation_name), trainer.device))
        meters.reset()

    def _of(self, trainer: Trainer) -> _Meters:
        name = trainer.validation_name
        assert name is not None, "validation hooks are called only during a validation"
        if name not in self._validation:
            self._validation[name] = _Meters(self._prototypes)
        return self._validation[name]

    def _read(self, outputs: Mapping[str, Any], batch: Any) -> list[Any]:
        taken = [name for name in self._prototypes if name in outputs]
        if taken:
            problem = ": the model's outputs already use this name; expected a name that they do not use."
            raise SettingError(f"metrics.{taken[0]}", problem)
        return [_find(key, outputs, batch) for key in self._inputs]


class _Meters:
    """Copies of all metrics, for training or for one validation set."""

    def __init__(self, prototypes: Mapping[str, Any]) -> None:
        self._metrics = {name: metric.clone() for name, metric in prototypes.items()}
        self._device: torch.device | None = None
        for metric in self._metrics.values():
            metric.persistent(True)
            metric.reset()

    def _move(self, device: torch.device | None) -> None:
        if device is not None and device != self._device:
            self._device = device
            for metric in self._metrics.values():
                metric.to(device)

    def update(self, values: Sequence[Any]) -> None:
        device = next((value.device for value in values if isinstance(value, Tensor)), self._device)
        self._move(device)
        for metric in self._metrics.values():
            metric.update(*values)

    def compute(self, prefix: str, device: torch.device) -> dict[str, Any]:
        if self._device is None:  # no update: torchmetrics gathers the values of all processes on one kind of device
            self._move(device)
        values: dict[str, Any] = {}
        for name, metric in self._metrics.items():
            with warnings.catch_warnings():
                # A process without rows has made no update.
                warnings.filterwarnings("ignore", message="The ``compute`` method of metric .* was called before")
                value = metric.compute()
            parts = {f"_{key}": part for key, part in value.items()} if isinstance(value, Mapping) else {"": value}
            for suffix, part in parts.items():
                if isinstance(part, Tensor) and part.numel() == 1:
                    part = part.detach().reshape(())
                elif not isinstance(part, int | float):
                    is_tensor = isinstance(part, Tensor)
                    kind = f"shape {tuple(part.shape)}" if is_tensor else f"type {type(part).__name__}"
                    raise SettingError(f"metrics.{name}", f": computes a value of {kind}; expected a single number.")
                values[f"{prefix}/{name}{suffix}"] = part
        return values

    def reset(self) -> None:
        for metric in self._metrics.values():
            metric.reset()

    def state_dict(self) -> dict[str, Any]:
        return {name: dict(metric.state_dict()) for name, metric in self._metrics.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state.keys() != self._metrics.keys():
            problem = f"={[*self._metrics]}: expected the metrics in the checkpoint: {', '.join(state)}."
            raise SettingError("metrics", problem)
        for name, metric in self._metrics.items():
            metric.reset()
            metric.load_state_dict(state[name])
        self._device = None  # the loaded tensors are on the CPU; the next update moves the metrics to the device


def _find(key: str | int, outputs: Mapping[str, Any], batch: Any) -> Any:
    """Return the model output ``key``. If the model has no such output, return the entry ``key`` of the batch."""
    parts = batch if isinstance(batch, Mapping) else dict(enumerate(batch)) if isinstance(batch, list | tuple) else {}
    if key not in outputs and key not in parts:
        known = f"an output of the model ({', '.join(outputs)}) or an entry of the batch ({', '.join(map(str, parts))})"
        hint = did_you_mean(str(key), (str(name) for name in [*outputs, *parts] if name != "loss"))
        remedy = f"return {key} from the model, or name other inputs"
        raise SettingError("inputs", f": {key} was not found; expected {known}; {remedy}.{hint}")
    found = outputs[str(key)] if key in outputs else parts[key]
    return found.detach() if isinstance(found, Tensor) else found
