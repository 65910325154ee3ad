"""Models: each documents the batch that it takes and what it returns beside its loss."""

from loopwright.models.causal_lm import CausalLM
from loopwright.models.cnn import CNN
from loopwright.models.gpt import GPT
from loopwright.models.mlp import MLP, MLPRegressor
from loopwright.models.vit import ViT

__all__ = ["CNN", "GPT", "MLP", "CausalLM", "MLPRegressor", "ViT"]
