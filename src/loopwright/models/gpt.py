"""`GPT`: a decoder-only transformer language model.

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
from loopwright.models.batches import predict_next, tokens_of
from loopwright.models.transformer import Rotation, Transformer, initialise, rotary_angles

POSITIONS = ("learned", "rotary")

_BYTES = 256
_IGNORED = -100


class GPT(nn.Module):
    """A language model with the architecture of GPT-2.

    ``model(batch)`` takes a mapping with the entry ``tokens``, an int64 tensor of shape B x (T + 1). The first T tokens
    of a row are the inputs, and the last T tokens are the targets. Each target is predicted from the tokens before it.
    The value -100 marks padding at the end of a row. Padding is not predicted. The outputs are

    - ``loss``: mean cross entropy over the predicted tokens, in nats;
    - ``num_items``: number of predicted tokens;
    - ``logits``: tensor of shape B x T x V;
    - ``targets``: tokens to predict, B x T;
    - ``bits_per_byte``: the loss in bits; present only if ``vocab_size`` is 256, because each token is then a byte.

    With learned positions and tied weights, this model computes the same function as GPT-2 with equal weights, up to
    rounding. Source: A. Radford et al., "Language Models are Unsupervised Multitask Learners", 2019, section 2.3.

    Args:
        vocab_size: number of tokens in the vocabulary, V; 256 for bytes.
        context_length: maximum number of input tokens in a row, the largest T.
        width: model width, D; the hidden layer of the feed-forward branch is four times as wide.
        num_layers: number of transformer blocks.
        num_heads: number of attention heads in each block; a divisor of ``width``.
        dropout: probability, in [0, 1), with which a value of the embeddings, of the attention weights, or of the
            outputs of attention and feed-forward layers is set to 0 in training.
        positions: "learned" adds a learned vector for each position; "rotary" rotates queries and keys.
        ties_weights: whether the output layer shares its weights with the token embedding.

    Raises:
        SettingError: if a setting is invalid. `forward` raises this error for tokens that do not fit the settings.
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
            raise refuse("positions", positions, " or ".join(POSITIONS), f"Did you mean {near}?" if near else "")
        self.transformer = Transformer(width, num_layers, num_heads, dropout, is_causal=True)
        self.token_embedding = nn.Embedding(self.vocab_size, width)
        self.position_embedding = nn.Embedding(self.context_length, width) if positions == "learned" else None
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.head = None if ties_weights else nn.Linear(width, self.vocab_size, bias=False)
        for module in (self.token_embedding, self.position_embedding, self.head):
            if module is not None:
                initialise(module, width)
        if positions == "rotary":
            if width // num_heads % 2:
                expected = f"an even quotient width / num_heads with positions=rotary, found {width // num_heads}"
                raise refuse("num_heads", num_heads, expected)
            cos_TH, sin_TH = rotary_angles(self.context_length, width // num_heads)
            # As buffers, these tensors move to the model's device. They are not saved, because they can be recomputed.
            self.register_buffer("cos_TH", cos_TH, persistent=False)
            self.register_buffer("sin_TH", sin_TH, persistent=False)

    def check_batch(self, batch: Mapping[str, Tensor]) -> None:
        """Check that a batch fits this model.

        The batch must be on the CPU. The model may be on the meta device.

        Raises:
            SettingError: in the same cases as `forward`, and if the dtype of the tokens is not int64.
        """
        tokens_BS = self._tokens(batch)
        if tokens_BS.dtype != torch.int64:
            raise SettingError("model", f": expected tokens in torch.int64, the data has tokens in {tokens_BS.dtype}.")
        if (((tokens_BS < 0) & (tokens_BS != _IGNORED)) | (tokens_BS >= self.vocab_size)).any():
            raise self._unknown_tokens(tokens_BS)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Predict the tokens of a batch and compute the loss."""
        tokens_BS = self._tokens(batch)
        read_BT, targets_BT = tokens_BS[:, :-1], tokens_BS[:, 1:]
        num_items = (targets_BT != _IGNORED).sum()
        try:
            logits_BTV = self.logits(read_BT.masked_fill(read_BT == _IGNORED, 0))
            # The sum is used because the mean of cross_entropy is NaN if every target is padding.
            total = functional.cross_entropy(
                logits_BTV.flatten(end_dim=1), targets_BT.flatten(), ignore_index=_IGNORED, reduction="sum"
            )
        except IndexError:  # raised on the CPU only; checking the tokens here would wait for the device
            raise self._unknown_tokens(tokens_BS) from None
        loss = total / num_items.clamp_min(1)
        outputs = {"loss": loss, "num_items": num_items, "logits": logits_BTV, "targets": targets_BT}
        if self.vocab_size == _BYTES:
            outputs["bits_per_byte"] = loss.detach() / math.log(2)
        return outputs

    def predict(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Predict the token after each row: ``prediction``, of shape B, and ``probability``, B x V.

        At most the last ``context_length`` tokens of a row are read. Tokens of -100 at the end of a row are padding.

        Raises:
            SettingError: for a batch without tokens, or with tokens of another shape.
        """
        return predict_next(self.logits, batch, self.context_length, _IGNORED)

    def logits(self, tokens_BT: Tensor) -> Tensor:
        """Return the logits of the next token at each position, B x T x V."""
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
        """Generate ``num_tokens`` more tokens for each row. The model stays in its training or evaluation mode.

        Args:
            tokens_BT: prompts, int64 on the model's device, with at least one token in each row.
            num_tokens: number of tokens to append to each row.
            temperature: divisor of the logits. With 0 the most likely token is chosen; otherwise tokens are sampled
                with torch's global generator.

        Returns:
            The prompts with the appended tokens, B x (T + num_tokens).
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
        tokens_BS = tokens_of(batch, least=2)
        if tokens_BS.shape[1] > self.context_length + 1:
            num_inputs = tokens_BS.shape[1] - 1
            raise SettingError(
                "context_length",
                f"={self.context_length}: expected at least {num_inputs}, the number of input tokens in a row of the "
                f"data; set model.context_length={num_inputs}.",
            )
        return tokens_BS

    def _unknown_tokens(self, tokens_BS: Tensor) -> SettingError:
        lowest, highest = (int(bound) for bound in tokens_BS.aminmax())
        expected = f"tokens in [0, {self.vocab_size}), or -100 for padding"
        problem = f": expected {expected}, the data has tokens from {lowest} to {highest}."
        return SettingError("vocab_size", f"={self.vocab_size}{problem}")
