"""Functions that build optimizers with parameter groups chosen by name, and learning-rate schedules."""

from loopwright.optim.groups import group_parameters
from loopwright.optim.optimizers import NAME_ARGUMENTS, adam, adamw, kind_of, sgd
from loopwright.optim.schedules import constant, inverse_sqrt, linear, step_decay, warmup_cosine, warmup_stable_decay

__all__ = [
    "NAME_ARGUMENTS",
    "adam",
    "adamw",
    "constant",
    "group_parameters",
    "inverse_sqrt",
    "kind_of",
    "linear",
    "sgd",
    "step_decay",
    "warmup_cosine",
    "warmup_stable_decay",
]
