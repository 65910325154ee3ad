"""Data: our own loader, any dataloader as a source of batches, and the data sets that configurations name."""

from loopwright.data.digits import digits
from loopwright.data.loader import Loader
from loopwright.data.source import as_source
from loopwright.data.splits import Splits
from loopwright.data.synthetic import synthetic
from loopwright.data.tensors import TensorData

__all__ = ["Loader", "Splits", "TensorData", "as_source", "digits", "synthetic"]
