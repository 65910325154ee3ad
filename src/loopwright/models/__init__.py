"""Models that classify images; each returns its loss and its accuracy."""

from loopwright.models.cnn import CNN
from loopwright.models.mlp import MLP

__all__ = ["CNN", "MLP"]
