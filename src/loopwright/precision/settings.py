"""`Precision`: the settings of the type that a model computes in, and of gradient clipping."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from loopwright.errors import SettingError, refuse, refuse_type


@dataclass(frozen=True, slots=True)
class Precision:
    """How a step computes: the type and the clipping of gradients.

    Args:
        dtype: "float32" casts nothing: a float64 model stays float64.
        max_gradient_norm: scale the gradients of a step down to this L2 norm, over all the optimizer's; None: off.
        max_gradient_value: clamp each gradient entry to [-value, value]; None: off. Excludes ``max_gradient_norm``.

    Raises:
        SettingError: for another dtype, for limits that are not positive and finite, for both limits at once.
    """

    dtype: str = "float32"
    max_gradient_norm: float | None = None
    max_gradient_value: float | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.dtype != "float32":
            raise refuse("dtype", self.dtype, "float32", "other types are not built yet")
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
                f"={self.max_gradient_norm} and max_gradient_value={self.max_gradient_value}: expected one of the two; "
                "set the other to null.",
            )

    @property
    def autocast_dtype(self) -> torch.dtype | None:
        """The type that a forward casts to; None: nothing is cast."""
        return None

    @property
    def is_clipping(self) -> bool:
        """Whether gradients are clipped."""
        return self.max_gradient_norm is not None or self.max_gradient_value is not None

    def clip(self, parameters: Iterable[Tensor]) -> None:
        """Clip the gradients of ``parameters`` in place, on their device."""
        if self.max_gradient_norm is not None:
            nn.utils.clip_grad_norm_(parameters, self.max_gradient_norm)
        if self.max_gradient_value is not None:
            nn.utils.clip_grad_value_(parameters, self.max_gradient_value)
