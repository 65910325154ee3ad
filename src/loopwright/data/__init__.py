"""Data sets that configurations name, our own `Loader`, and `as_source`, through which any dataloader is read."""

from loopwright.data.content import hash_content
from loopwright.data.csv import csv
from loopwright.data.digits import digits
from loopwright.data.image_folder import ImageFolder, image_folder
from loopwright.data.loader import Loader
from loopwright.data.source import as_source
from loopwright.data.splits import Splits
from loopwright.data.stdlib_text import stdlib_text
from loopwright.data.synthetic import synthetic, synthetic_regression, synthetic_tokens
from loopwright.data.tensor_file import TensorFile, tensor_file
from loopwright.data.tensors import TensorData
from loopwright.data.text_windows import TextWindows

__all__ = [
    "ImageFolder",
    "Loader",
    "Splits",
    "TensorData",
    "TensorFile",
    "TextWindows",
    "as_source",
    "csv",
    "digits",
    "hash_content",
    "image_folder",
    "stdlib_text",
    "synthetic",
    "synthetic_regression",
    "synthetic_tokens",
    "tensor_file",
]
