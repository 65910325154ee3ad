"""A callback that evaluates a language model on downstream tasks, the callback's validation loop, and tokenizers."""

from loopwright.downstream.harness import EleutherEvalHarness
from loopwright.downstream.requests import EleutherEvalHarnessLoop
from loopwright.downstream.tokenizers import ByteTokenizer, TokenizerFile

__all__ = ["ByteTokenizer", "EleutherEvalHarness", "EleutherEvalHarnessLoop", "TokenizerFile"]
