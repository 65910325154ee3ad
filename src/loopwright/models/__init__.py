"""Models. The docstring of each class describes the batches that the model accepts and the outputs that it returns."""

from loopwright.models.causal_lm import CausalLM
from loopwright.models.cnn import CNN
from loopwright.models.gpt import GPT
from loopwright.models.mlp import MLP, MLPRegressor
from loopwright.models.supervised import Supervised
from loopwright.models.vit import ViT

__all__ = ["CNN", "GPT", "MLP", "CausalLM", "MLPRegressor", "Supervised", "ViT"]
