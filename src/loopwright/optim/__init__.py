"""Learning-rate schedules that torch does not have."""

from loopwright.optim.warmup_cosine import warmup_cosine

__all__ = ["warmup_cosine"]
