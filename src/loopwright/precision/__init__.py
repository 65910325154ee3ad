"""Precision settings, casting of tensors in a forward, and loss scaling."""

from loopwright.precision.casting import forward_context, map_tensors, with_cast_inputs
from loopwright.precision.scaling import Scaling
from loopwright.precision.settings import Precision

__all__ = ["Precision", "Scaling", "forward_context", "map_tensors", "with_cast_inputs"]
