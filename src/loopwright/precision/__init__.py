"""The type that a model computes in: its settings, the casting around a forward, and the scaling of the loss."""

from loopwright.precision.casting import forward_context
from loopwright.precision.scaling import Scaling
from loopwright.precision.settings import Precision

__all__ = ["Precision", "Scaling", "forward_context"]
