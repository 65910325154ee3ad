"""`NoiseScale`: logs the gradient noise scale, an estimate of the largest useful batch size."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from loopwright.callbacks.saved_state import check_names, check_numbers
from loopwright.errors import SettingError, check_count, refuse, refuse_type
from loopwright.hooks import Callback

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from loopwright.loop import LoopCallback
    from loopwright.trainer import Trainer


class NoiseScale(Callback):
    """Logs the simple noise scale of McCandlish et al. 2018, An Empirical Model of Large-Batch Training, appendix A.1.

    At every ``every_n_steps``-th step, with the squared norms of two gradients ::

        g_small    gradient of one micro-batch in one process, which has B_small items
        g_big      gradient of the whole step, which has B_big items
        signal = (B_big * g_big - B_small * g_small) / (B_big - B_small)    # estimates the squared norm of the gradient
        noise = (g_small - g_big) / (1 / B_small - 1 / B_big)               # estimates the trace of the covariance
        train/noise_scale = average(noise) / average(signal)                # in items

    The averages are exponential averages over the measurements, which are also logged as ``train/noise_scale_signal``
    and ``train/noise_scale_noise``. If an average is not above 0, because there were too few measurements, the noise
    scale is not logged. An item is what the output ``num_items`` counts, or a sample.

    A measured step waits for the device, and makes an additional forward and backward on its last micro-batch. Their
    time is not included in the training time. If several processes train together, every process measures its rows of
    a micro-batch. ``g_small`` is then the mean over the processes, and 1 / ``B_small`` is the mean of 1 / items. The
    weights, buffers and random numbers of the training do not change. The additional forward calls no hooks, so it uses
    the batch without the changes that ``on_before_forward`` of another callback makes.

    A step whose micro-batch has all items of the step, or with a gradient that is not finite, is not measured.

    Args:
        every_n_steps: number of steps from one measurement to the next.
        decay: weight of the old average in an update of an average, in [0, 1).

    Raises:
        SettingError: if an argument is invalid. When a fit starts, if it trains one micro-batch a step in one process,
            or if the model is sharded.
    """

    def __init__(self, every_n_steps: int = 50, decay: float = 0.95) -> None:
        if isinstance(decay, bool) or not isinstance(decay, int | float):
            raise refuse_type("decay", decay, "a number in [0, 1)")
        if not 0 <= decay < 1:
            raise refuse("decay", decay, "a number in [0, 1)")
        self._every_n_steps = check_count("every_n_steps", every_n_steps, "a whole number of steps, 1 or more")
        self._decay = float(decay)
        # Sums of signal, noise and 1, in which each measurement has the weight of an exponential average.
        self._signal = self._noise = self._weight = 0.0
        self._batch: Any = None
        self._num_items = 0.0  # of this process in the step so far
        self._last: tuple[Any, float] | None = None  # last micro-batch of this process with items, and its items
        self._has_new = False

    def logs(self, metric: str) -> bool:
        """Return whether ``metric`` is the noise scale or one of its averages."""
        return metric in ("train/noise_scale", "train/noise_scale_signal", "train/noise_scale_noise")

    def state_dict(self) -> dict[str, Any]:
        """Return the sums of the averages."""
        return {"signal": self._signal, "noise": self._noise, "weight": self._weight}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the sums of the averages.

        Raises:
            CheckpointError: if an entry is missing or is not a number.
        """
        check_names("NoiseScale", state_dict, self.state_dict())
        check_numbers("NoiseScale", state_dict, *state_dict)
        self._signal, self._noise, self._weight = (float(state_dict[name]) for name in ("signal", "noise", "weight"))

    def on_fit_start(self, trainer: Trainer, train_dataloader: Any, val_dataloader: Any, loop: LoopCallback) -> None:
        """Refuse a fit in which the gradients of a micro-batch and of the step are the same."""
        plan = trainer.plan
        assert plan is not None, "a fit that starts has a plan"
        if trainer.world_size == 1 and plan.grad_accum_steps == 1:
            raise SettingError(
                "loop.grad_accum_steps",
                "=1: expected 2 or more with NoiseScale, or several processes (device.num_processes=2), because it "
                "compares the gradient of one micro-batch in one process with the gradient of the step.",
            )
        if trainer.is_sharded:
            raise SettingError("device.strategy", "=fsdp: expected ddp with NoiseScale.")
        self._clear()
        self._has_new = False

    def on_train_batch_start(self, trainer: Trainer, model: nn.Module, batch: Any, batch_idx: int) -> None:
        """Keep the micro-batch of a step that is measured, until its items are known."""
        if not (trainer.global_step + 1) % self._every_n_steps:
            self._batch = batch

    def on_before_backward(self, trainer: Trainer, model: nn.Module, outputs: dict[str, Any]) -> None:
        """Count the items of the micro-batch."""
        if self._batch is None or trainer.is_padding:
            return
        num_items = trainer.measures.num_items(outputs, self._batch)
        if num_items:
            self._num_items += num_items
            self._last = (self._batch, num_items)

    def on_before_optimizer_step(self, trainer: Trainer, model: nn.Module, optimizer: Optimizer) -> None:
        """Measure the gradient of a micro-batch, and update the averages."""
        if (trainer.global_step + 1) % self._every_n_steps:
            return
        num_items, last = self._num_items, self._last
        self._clear()
        parameters = [each for group in optimizer.param_groups for each in group["params"]]
        big = trainer.measures.gradient_square(parameters)
        own = {"num_items": num_items}
        if last is not None:
            small, num_small = trainer.measures.own_gradient_square(*last, parameters)
            own |= {"small": small, "inverse": 1 / num_small, "num_processes": 1.0}
        sums = trainer.sum_over_processes(own)
        if not sums.get("num_processes"):
            return
        small, inverse = sums["small"] / sums["num_processes"], sums["inverse"] / sums["num_processes"]
        signal, noise = signal_and_noise(small, 1 / inverse, big, sums["num_items"])
        if not (math.isfinite(signal) and math.isfinite(noise)):
            return
        new = 1 - self._decay
        self._signal = self._decay * self._signal + new * signal
        self._noise = self._decay * self._noise + new * noise
        self._weight = self._decay * self._weight + new
        self._has_new = True

    def on_before_optimizer_zero_grad(self, trainer: Trainer, model: nn.Module, optimizer: Optimizer) -> None:
        """Release the micro-batch at the end of a step, also if the step has no update."""
        self._clear()

    def on_train_batch_end(
        self, trainer: Trainer, model: nn.Module, outputs: dict[str, Any], batch: Any, batch_idx: int
    ) -> None:
        """Log the averages. ``global_step`` has already been incremented for this step."""
        if self._has_new:
            self._has_new = False
            signal, noise = self._signal / self._weight, self._noise / self._weight
            is_known = signal > 0 and noise > 0
            trainer.log_metrics(
                **({"train/noise_scale": noise / signal} if is_known else {}),
                **{"train/noise_scale_signal": signal, "train/noise_scale_noise": noise},
            )

    def _clear(self) -> None:
        self._batch, self._last, self._num_items = None, None, 0.0


def signal_and_noise(small: float, num_small: float, big: float, num_big: float) -> tuple[float, float]:
    """Return unbiased estimates of the squared norm of the true gradient, and of the trace of its covariance.

    Args:
        small: squared norm of the gradient of the mean loss over ``num_small`` items.
        num_small: number of items of the small batch.
        big: squared norm of the gradient of the mean loss over ``num_big`` items.
        num_big: number of items of the large batch.

    Returns:
        The estimates of McCandlish et al. 2018, appendix A.1; two NaN if the small batch has all items.
    """
    if num_big - num_small < 1e-9 * num_big:
        return math.nan, math.nan
    signal = (num_big * big - num_small * small) / (num_big - num_small)
    noise = (small - big) / (1 / num_small - 1 / num_big)
    return signal, noise
