"""Protocols of language models and tokenizers."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class LanguageModel(Protocol):
    """A causal language model that the evaluations in `loopwright.downstream` can use."""

    context_length: int

    def logits(self, tokens_BT: Tensor) -> Tensor:
        """Return the logits of the token after each position, of shape (batch, T, vocabulary).

        The logits at a position must not depend on later tokens.

        Args:
            tokens_BT: int64 tensor of shape (batch, T), with T at most `context_length`.
        """
        ...


@runtime_checkable
class CachingLanguageModel(LanguageModel, Protocol):
    """A language model that may cache results for earlier tokens, to make generation faster.

    The attribute ``caches`` is True if the model caches results.
    """

    caches: bool

    def begin(self, tokens_BT: Tensor, lengths_B: Tensor) -> tuple[Tensor, Any]:
        """Process prompts. Row i of ``tokens_BT`` contains ``lengths_B[i]`` tokens, padded at the end to T tokens.

        Returns:
            The logits of the token after each prompt, of shape (batch, vocabulary), and the cache for `go_on`.
        """
        ...

    def go_on(self, tokens_B: Tensor, read: Any) -> tuple[Tensor, Any]:
        """Process one more token in each row, given the cache ``read`` of the earlier tokens.

        Return the logits of the next token, of shape (batch, vocabulary), and a new cache.
        """
        ...


class Tokenizer(Protocol):
    """Converts between text and the tokens of a language model."""

    vocab_size: int
    prefix_token: int
    end_token: int | None

    def encode(self, text: str) -> list[int]:
        """Convert ``text`` to tokens, without special tokens for the beginning or the end."""
        ...

    def decode(self, tokens: list[int]) -> str:
        """Convert ``tokens`` to text."""
        ...
