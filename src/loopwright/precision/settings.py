"""`Precision`: floating-point dtype of a model's computations, and gradient clipping."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from loopwright.errors import SettingError, refuse, refuse_type


@dataclass(frozen=True, slots=True)
class Precision:
    """Floating-point dtype and gradient clipping of a training step.

    Args:
        dtype: only "float32" is accepted. Nothing is cast, so a float64 model is computed in float64.
        max_gradient_norm: largest L2 norm over all gradients of the optimizer's parameters. Gradients with a larger
            norm are scaled down to this norm. At log steps, the norm before the scaling is logged as
            ``train/gradient_norm``. None: the norm is not limited.
        max_gradient_value: bound of each gradient entry, which is clamped to [-value, value]. None: the entries are not
            clamped. This setting cannot be combined with ``max_gradient_norm``.

    Raises:
        SettingError: if ``dtype`` is not supported, a limit is not a finite number above 0, or both limits are given.
    """

    dtype: str = "float32"
    max_gradient_norm: float | None = None
    max_gradient_value: float | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.dtype != "float32":
            raise refuse("dtype", self.dtype, "float32", "other dtypes are not supported yet")
        for name, limit in (
            ("max_gradient_norm", self.max_gradient_norm),
            ("max_gradient_value", self.max_gradient_value),
        ):
            if limit is None:
                continue
            if isinstance(limit, bool) or not isinstance(limit, int | float):
                raise refuse_type(name, limit, "a positive number", "use null to turn it off")
            if not 0 < limit < math.inf:
                raise refuse(name, limit, "a positive number", "use null to turn it off")
        if self.max_gradient_norm is not None and self.max_gradient_value is not None:
            raise SettingError(
                "max_gradient_norm",
                f"={self.max_gradient_norm} and max_gradient_value={self.max_gradient_value}: expected only one of "
                "them; set the other to null.",
            )

    @property
    def autocast_dtype(self) -> torch.dtype | None:
        """The dtype to which a forward casts; None: nothing is cast."""
        return None

    @property
    def is_clipping(self) -> bool:
        """Whether gradients are clipped."""
        return self.max_gradient_norm is not None or self.max_gradient_value is not None

    def clip(self, parameters: Iterable[Tensor]) -> Tensor | None:
        """Clip the gradients of ``parameters`` in place.

        Returns:
            The L2 norm of all gradients before the clipping, as a scalar on their device; None if the norm is not
            limited, as it is not computed then.
        """
        if self.max_gradient_value is not None:
            nn.utils.clip_grad_value_(parameters, self.max_gradient_value)
        return None if self.max_gradient_norm is None else nn.utils.clip_grad_norm_(parameters, self.max_gradient_norm)
