"""The floating-point dtype of computations: settings, casting in a forward, and loss scaling."""

from loopwright.precision.casting import forward_context
from loopwright.precision.scaling import Scaling
from loopwright.precision.settings import Precision

__all__ = ["Precision", "Scaling", "forward_context"]
