"""Public names for data: data sets, the dataloader `Loader`, and `as_source`, which wraps any dataloader."""

from loopwright.data.reading.loader import Loader
from loopwright.data.reading.source import as_ordered_source, as_source
from loopwright.data.sets.content import hash_content
from loopwright.data.sets.csv import csv
from loopwright.data.sets.digits import digits
from loopwright.data.sets.image_folder import ImageFolder, image_folder
from loopwright.data.sets.new_samples import NewSamples, new_samples
from loopwright.data.sets.splits import Splits
from loopwright.data.sets.stdlib_text import stdlib_text
from loopwright.data.sets.synthetic import synthetic, synthetic_regression, synthetic_tokens
from loopwright.data.sets.tensor_file import TensorFile, tensor_file
from loopwright.data.sets.tensors import TensorData
from loopwright.data.sets.text_windows import TextWindows

__all__ = [
    "ImageFolder",
    "Loader",
    "NewSamples",
    "Splits",
    "TensorData",
    "TensorFile",
    "TextWindows",
    "as_ordered_source",
    "as_source",
    "csv",
    "digits",
    "hash_content",
    "image_folder",
    "new_samples",
    "stdlib_text",
    "synthetic",
    "synthetic_regression",
    "synthetic_tokens",
    "tensor_file",
]
