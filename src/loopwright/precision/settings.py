"""`Precision`: floating-point dtypes, gradient clipping and loss scaling of a training step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from loopwright.errors import SettingError, check_count, did_you_mean, refuse, refuse_type
from loopwright.precision.scaling import Scaling
from loopwright.sharded_tensors import whole_tensor

_DTYPES = ("float32", "bf16", "fp16", "bf16_pure")
# Names of dtypes in other frameworks, with the names in Loopwright.
_ELSEWHERE = {
    **dict.fromkeys(("bfloat16", "bf16-mixed", "amp_bf16", "torch.bfloat16"), "bf16"),
    **dict.fromkeys(("float16", "half", "16", "16-mixed", "fp16-mixed", "amp_fp16", "torch.float16"), "fp16"),
    **dict.fromkeys(("32", "fp32", "32-true", "single", "torch.float32"), "float32"),
    "bf16-true": "bf16_pure",
}


@dataclass(frozen=True, slots=True)
class Precision:
    """Floating-point dtypes, gradient clipping and loss scaling of a training step.

    ============== ================ ================ =============== =========================================
    ``dtype``      weights          forward          optimizer state remarks
    ============== ================ ================ =============== =========================================
    ``float32``    as built         as built         as built        nothing is cast
    ``bf16``       as built         autocast         as built        bfloat16; recommended on recent GPUs
    ``fp16``       as built         autocast         as built        float16, with a scaled loss
    ``bf16_pure``  bfloat16         bfloat16         bfloat16        half the memory; small updates are lost
    ============== ================ ================ =============== =========================================

    In ``bf16`` and ``fp16``, `torch.autocast` casts the inputs of some operations, such as matrix multiplications, in a
    forward. Weights, gradients and updates keep their dtype. In ``bf16_pure``, the model and the floating-point
    tensors of each batch are converted. A bfloat16 number has 8 significant bits, so an update smaller than about 1/256
    of a weight is lost.

    Args:
        dtype: "float32", "bf16", "fp16" or "bf16_pure".
        max_gradient_norm: largest L2 norm over all gradients of the optimizer's parameters. Gradients with a larger
            norm are scaled down to this norm. At log steps, the norm before clipping is logged as
            ``train/gradient_norm``. None: the norm is not limited.
        max_gradient_value: bound of each gradient entry, which is clamped to [-value, value]. None: the entries are not
            clamped. This setting cannot be combined with ``max_gradient_norm``.
        first_scale: scale of the loss in the first step, only for ``fp16``; None: `Scaling` chooses the scale.
        growth_every_n_steps: number of consecutive updates without a skipped update after which the scale of the loss
            is doubled, only for ``fp16``.

    Raises:
        SettingError: if ``dtype`` is not supported; if a limit or ``first_scale`` is not a finite number above 0; if
            both limits are given; if ``growth_every_n_steps`` is not a whole number above 0; if ``first_scale`` is
            given and ``dtype`` is not ``fp16``.
    """

    dtype: str = "float32"
    max_gradient_norm: float | None = None
    max_gradient_value: float | None = None
    first_scale: float | None = None
    growth_every_n_steps: int = 2000

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.dtype not in _DTYPES:
            hint = did_you_mean(_ELSEWHERE.get(str(self.dtype), str(self.dtype)), _DTYPES)
            raise SettingError("dtype", f"={self.dtype!r}: expected {', '.join(_DTYPES[:-1])} or {_DTYPES[-1]}.{hint}")
        check_count("growth_every_n_steps", self.growth_every_n_steps, "a whole number of updates, 1 or more")
        for name, limit, remedy in (
            ("max_gradient_norm", self.max_gradient_norm, "use null to turn it off"),
            ("max_gradient_value", self.max_gradient_value, "use null to turn it off"),
            ("first_scale", self.first_scale, "use null for the default"),
        ):
            if limit is None:
                continue
            if isinstance(limit, bool) or not isinstance(limit, int | float):
                raise refuse_type(name, limit, "a positive number", remedy)
            if not 0 < limit < math.inf:
                raise refuse(name, limit, "a positive number", remedy)
        if self.max_gradient_norm is not None and self.max_gradient_value is not None:
            raise SettingError(
                "max_gradient_norm",
                f"={self.max_gradient_norm} and max_gradient_value={self.max_gradient_value}: expected only one of "
                "them; set the other to null.",
            )

        if self.first_scale is not None and self.dtype != "fp16":
            raise refuse("first_scale", self.first_scale, f"null with dtype={self.dtype}", "only fp16 scales the loss")

    @property
    def autocast_dtype(self) -> torch.dtype | None:
        """The dtype of `torch.autocast` in a forward; None: nothing is cast."""
        return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.dtype)

    @property
    def model_dtype(self) -> torch.dtype | None:
        """The dtype to which the weights and the inputs of the model are converted; None: no conversion."""
        return torch.bfloat16 if self.dtype == "bf16_pure" else None

    def make_scaling(self, device_type: str) -> Scaling | None:
        """Return a new object that scales the loss; None: the loss is not scaled.

        Args:
            device_type: type of the device in torch, such as "cuda".
        """
        if self.dtype != "fp16":
            return None
        return Scaling(device_type, self.first_scale, self.growth_every_n_steps)

    @property
    def is_clipping(self) -> bool:
        """Whether gradients are clipped."""
        return self.max_gradient_norm is not None or self.max_gradient_value is not None

    def clip(self, parameters: Iterable[Tensor]) -> Tensor | None:
        """Clip the gradients of ``parameters`` in place.

        Returns:
            The L2 norm of all gradients before clipping, as a scalar on their device. None if ``max_gradient_norm`` is
            None, because the norm is then not computed.
        """
        if self.max_gradient_value is not None:
            nn.utils.clip_grad_value_(parameters, self.max_gradient_value)
        if self.max_gradient_norm is None:
            return None
        return whole_tensor(nn.utils.clip_grad_norm_(parameters, self.max_gradient_norm))
