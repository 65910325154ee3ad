"""`Metrics`: measures of torchmetrics, over training and over each validation set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from loopwright.errors import SettingError, did_you_mean, refuse, refuse_type
from loopwright.hooks import Callback

if TYPE_CHECKING:
    from loopwright.loop import LoopCallback
    from loopwright.trainer import Trainer

_METHODS = ("update", "compute", "reset", "persistent")  # what is asked of a metric, beside a module's methods


class Metrics(Callback):
    """Feeds every batch to metrics of torchmetrics and logs them as ``train/<name>`` and ``val/<name>``.

    Training and each validation set have copies of their own. A validation's values are those of the whole set, not
    means over batches. Those of training are read at log steps only, and are over the micro-batches since the one
    before; what they have gathered is part of a checkpoint. A metric that computes a mapping is logged as
    ``<name>_<key>``. Metrics that check their inputs may wait for the device at every batch: give them
    ``validate_args=False``.

    Args:
        metrics: name -> ``torchmetrics.Metric`` (``pip install 'loopwright[metrics]'``); copied, not changed.
        inputs: what ``update`` is given, in its order: each a name in the model's outputs, or else in the batch; a
            number is a place in a batch that is a list or tuple.

    Raises:
        SettingError: for anything else; while running, for inputs that are not there, names that the model's outputs
            have too, and values that are no single number.
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

    def state_dict(self) -> dict[str, Any]:
        """What training has gathered since the last log step."""
        return self._training.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with what was gathered."""
        self._training.load_state_dict(state_dict)

    def on_train_start(
        self, trainer: Trainer, model: nn.Module, train_dataloader: Any, loop: LoopCallback, loop_idx: int
    ) -> None:
        """Note the step, to see when it moves."""
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, model: nn.Module, outputs: dict[str, Any], batch: Any, batch_idx: int
    ) -> None:
        """Take a micro-batch in; at a log step log, and begin anew."""
        self._training.update(self._read(outputs, batch))
        step, is_same = trainer.global_step, trainer.global_step == self._step
        self._step = step
        if is_same or (step % trainer.log_every_n_steps and (trainer.plan is None or step != trainer.plan.stop_step)):
            return
        trainer.log_metrics(**self._training.compute("train"))
        self._training.reset()

    def on_validate_start(self, trainer: Trainer, model: nn.Module, val_dataloader: Any, loop: LoopCallback) -> None:
        """Begin anew for this set."""
        self._of(trainer).reset()

    def on_validate_batch_end(
        self, trainer: Trainer, model: nn.Module, outputs: dict[str, Any], batch: Any, batch_idx: int
    ) -> None:
        """Take a validation batch in."""
        self._of(trainer).update(self._read(outputs, batch))

    def on_validate_end(self, trainer: Trainer, model: nn.Module, loop: LoopCallback) -> None:
        """Log the values over the whole set."""
        meters = self._of(trainer)
        trainer.log_metrics(**meters.compute(str(trainer.validation_name)))
        meters.reset()

    def _of(self, trainer: Trainer) -> _Meters:
        name = trainer.validation_name
        assert name is not None, "hooks of a validation are called during one"
        if name not in self._validation:
            self._validation[name] = _Meters(self._prototypes)
        return self._validation[name]

    def _read(self, outputs: Mapping[str, Any], batch: Any) -> list[Any]:
        taken = [name for name in self._prototypes if name in outputs]
        if taken:
            raise SettingError(f"metrics.{taken[0]}", ": the model's outputs have this name; expected another.")
        return [_find(key, outputs, batch) for key in self._inputs]


class _Meters:
    """One copy of every metric."""

    def __init__(self, prototypes: Mapping[str, Any]) -> None:
        self._metrics = {name: metric.clone() for name, metric in prototypes.items()}
        self._device: torch.device | None = None
        for metric in self._metrics.values():
            metric.persistent(True)
            metric.reset()

    def update(self, values: Sequence[Any]) -> None:
        device = next((value.device for value in values if isinstance(value, Tensor)), self._device)
        if device != self._device:
            self._device = device
            for metric in self._metrics.values():
                metric.to(device)
        for metric in self._metrics.values():
            metric.update(*values)

    def compute(self, prefix: str) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, metric in self._metrics.items():
            value = metric.compute()
            parts = {f"_{key}": part for key, part in value.items()} if isinstance(value, Mapping) else {"": value}
            for suffix, part in parts.items():
                if isinstance(part, Tensor) and part.numel() == 1:
                    part = part.detach().reshape(())
                elif not isinstance(part, int | float):
                    shape = f"of shape {tuple(part.shape)}" if isinstance(part, Tensor) else type(part).__name__
                    raise SettingError(f"metrics.{name}", f": computes a value {shape}; expected a single number.")
                values[f"{prefix}/{name}{suffix}"] = part
        return values

    def reset(self) -> None:
        for metric in self._metrics.values():
            metric.reset()

    def state_dict(self) -> dict[str, Any]:
        return {name: dict(metric.state_dict()) for name, metric in self._metrics.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state.keys() != self._metrics.keys():
            raise SettingError("metrics", f"={[*self._metrics]}: expected those of the checkpoint: {', '.join(state)}.")
        for name, metric in self._metrics.items():
            metric.reset()
            metric.load_state_dict(state[name])
        self._device = None  # what was read lies on the CPU


def _find(key: str | int, outputs: Mapping[str, Any], batch: Any) -> Any:
    """The output, or else the part of the batch, that is called ``key``."""
    parts = batch if isinstance(batch, Mapping) else dict(enumerate(batch)) if isinstance(batch, list | tuple) else {}
    if key not in outputs and key not in parts:
        there = f"of the model's outputs ({', '.join(outputs)}) or of the batch ({', '.join(map(str, parts))})"
        hint = did_you_mean(str(key), map(str, [*outputs, *parts]))
        raise SettingError("inputs", f": {key} is not there; expected one {there}.{hint}")
    found = outputs[str(key)] if key in outputs else parts[key]
    return found.detach() if isinstance(found, Tensor) else found
