"""Downstream validations: they measure a model on tasks, in addition to its loss. Each is a `ValidationCallback`."""

from loopwright.downstream.harness import EleutherEvalHarness
from loopwright.downstream.requests import EleutherEvalHarnessLoop
from loopwright.downstream.tokenizers import ByteTokenizer, TokenizerFile

__all__ = ["ByteTokenizer", "EleutherEvalHarness", "EleutherEvalHarnessLoop", "TokenizerFile"]
