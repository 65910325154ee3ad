"""`GPT`: a decoder-only transformer, which predicts each token from those before it.

Shape suffixes: B batch, T positions, S = T + 1 tokens, D model width, H width of a head, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from loopwright.errors import SettingError, check_count, nearest, refuse
from loopwright.models.batches import not_taken
from loopwright.models.transformer import Rotation, Transformer, initialise, rotary_angles

POSITIONS = ("learned", "rotary")

_BYTES = 256
_IGNORED = -100


class GPT(nn.Module):
    """A language model of the GPT-2 kind.

    ``model(batch)`` takes a mapping with ``tokens``, int64, B x (T + 1): the first T are read, the last T predicted,
    each from those before it. A token of -100 is padding at the end of a row, and is not predicted.

    It returns ``loss``, the mean in nats per predicted token; ``num_items``, how many those are; ``logits``, B x T x
    V, and ``targets``, B x T; and, where the vocabulary has 256 tokens, which are then taken for bytes,
    ``bits_per_byte``: the loss in bits.

    With learned positions and tied weights it computes what GPT-2 does, from the same weights, up to rounding.
    Source: A. Radford et al., "Language Models are Unsupervised Multitask Learners", 2019, section 2.3.

    Args:
        vocab_size: tokens that there are; 256 for bytes.
        context_length: tokens that can be read at once.
        width: of the model; four times as wide inside the feed-forward layers.
        num_layers: blocks.
        num_heads: attention heads of a block; divides ``width``.
        dropout: fraction dropped in training, in [0, 1): of embeddings, attention weights, and what each block adds.
        positions: "learned": a vector for each position; "rotary": queries and keys are turned by their position.
        ties_weights: whether the output uses the embedding's weights, or has its own.

    Raises:
        SettingError: for settings that cannot be used; in `forward`, for tokens that do not fit them.
    """

    def __init__(
        self,
        vocab_size: int = 256,
        context_length: int = 256,
        width: int = 128,
        num_layers: int = 4,
        num_heads: int = 4,
        dropout: float = 0.0,
        positions: Literal["learned", "rotary"] = "learned",
        ties_weights: bool = True,
    ) -> None:
        super().__init__()
        self.vocab_size = check_count("vocab_size", vocab_size)
        self.context_length = check_count("context_length", context_length)
        if positions not in POSITIONS:
            near = nearest(str(positions), POSITIONS)
            raise refuse("positions", positions, " or ".join(POSITIONS), f"did you mean {near}" if near else "")
        self.transformer = Transformer(width, num_layers, num_heads, dropout, is_causal=True)
        self.token_embedding = nn.Embedding(self.vocab_size, width)
        self.position_embedding = nn.Embedding(self.context_length, width) if positions == "learned" else None
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.head = None if ties_weights else nn.Linear(width, self.vocab_size, bias=False)
        for part in (self.token_embedding, self.position_embedding, self.head):
            if part is not None:
                initialise(part, width)
        if positions == "rotary":
            if width // num_heads % 2:
                problem = f"an even width of a head for rotary positions, not {width // num_heads}"
                raise refuse("num_heads", num_heads, problem)
            cos_TH, sin_TH = rotary_angles(self.context_length, width // num_heads)
            # Computed, not learned: they belong to the device of the model, not to its checkpoints.
            self.register_buffer("cos_TH", cos_TH, persistent=False)
            self.register_buffer("sin_TH", sin_TH, persistent=False)

    def check_batch(self, batch: Mapping[str, Tensor]) -> None:
        """Refuse a batch, on the CPU, that this model cannot take; also where it has no weights yet.

        Raises:
            SettingError: as `forward`, and for tokens of another type.
        """
        tokens_BS = self._tokens(batch)
        if tokens_BS.dtype != torch.int64:
            raise SettingError("model", f": expected tokens in torch.int64, the data has {tokens_BS.dtype}.")
        if (((tokens_BS < 0) & (tokens_BS != _IGNORED)) | (tokens_BS >= self.vocab_size)).any():
            raise self._unknown(tokens_BS)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Predict the tokens of a batch."""
        tokens_BS = self._tokens(batch)
        read_BT, targets_BT = tokens_BS[:, :-1], tokens_BS[:, 1:]
        num_items = (targets_BT != _IGNORED).sum()
        try:
            logits_BTV = self.logits(read_BT.masked_fill(read_BT == _IGNORED, 0))
            # Not the mean of cross_entropy, which is NaN where there is nothing to predict.
            total = functional.cross_entropy(
                logits_BTV.flatten(end_dim=1), targets_BT.flatten(), ignore_index=_IGNORED, reduction="sum"
            )
        except IndexError:  # on the CPU only; looking beforehand would make every step wait for an accelerator
            raise self._unknown(tokens_BS) from None
        loss = total / num_items.clamp_min(1)
        outputs = {"loss": loss, "num_items": num_items, "logits": logits_BTV, "targets": targets_BT}
        if self.vocab_size == _BYTES:
            outputs["bits_per_byte"] = loss.detach() / math.log(2)
        return outputs

    def logits(self, tokens_BT: Tensor) -> Tensor:
        """The logits of the token after each, B x T x V."""
        num_positions = tokens_BT.shape[1]
        x_BTD = self.token_embedding(tokens_BT)
        rotation: Rotation | None = None
        if self.position_embedding is None:
            rotation = self.get_buffer("cos_TH")[:num_positions], self.get_buffer("sin_TH")[:num_positions]
        else:
            x_BTD = x_BTD + self.position_embedding.weight[:num_positions]
        x_BTD = self.transformer(self.dropout(x_BTD), rotation)
        return functional.linear(x_BTD, (self.token_embedding if self.head is None else self.head).weight)

    @torch.no_grad()
    def generate(self, tokens_BT: Tensor, num_tokens: int, temperature: float = 1.0) -> Tensor:
        """Continue each row by ``num_tokens`` tokens, in the mode that the model is in.

        Args:
            tokens_BT: int64, on the model's device, at least one token a row.
            num_tokens: to be added.
            temperature: by which logits are divided; 0 takes the likeliest token, else torch's global stream draws.

        Returns:
            The rows with what was added, B x (T + num_tokens).
        """
        for _ in range(num_tokens):
            logits_BV = self.logits(tokens_BT[:, -self.context_length :])[:, -1]
            if temperature == 0:
                next_B1 = logits_BV.argmax(dim=-1, keepdim=True)
            else:
                next_B1 = torch.multinomial((logits_BV / temperature).softmax(dim=-1), num_samples=1)
            tokens_BT = torch.cat((tokens_BT, next_B1), dim=1)
        return tokens_BT

    def _tokens(self, batch: Mapping[str, Tensor]) -> Tensor:
        try:
            tokens_BS = batch["tokens"]
        except (LookupError, TypeError):
            raise not_taken(batch, "tokens") from None
        if tokens_BS.ndim != 2 or tokens_BS.shape[1] < 2:
            given = tuple(tokens_BS.shape)
            raise SettingError("model", f": expected tokens of shape batch x (2 or more), the data has {given}.")
        if tokens_BS.shape[1] > self.context_length + 1:
            num_read = tokens_BS.shape[1] - 1
            raise SettingError(
                "context_length",
                f"={self.context_length}: the data has rows of {num_read} tokens to be read; "
                f"set model.context_length={num_read}.",
            )
        return tokens_BS

    def _unknown(self, tokens_BS: Tensor) -> SettingError:
        smallest, largest = (int(bound) for bound in tokens_BS.aminmax())
        problem = f": expected tokens in [0, {self.vocab_size}), or -100, the data has {smallest} to {largest}."
        return SettingError("vocab_size", f"={self.vocab_size}{problem}")
