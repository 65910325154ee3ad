"""Functions that check batches, and `predict_next`, which predicts the next token with a language model.

Shape suffixes: B batch, S tokens of a row, T positions that a model reads, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from loopwright.errors import SettingError


def not_taken(batch: Any, expected: str) -> SettingError:
    """Build the error for a batch without the keys that a model needs. The message may suggest another model."""
    if not isinstance(batch, Mapping):
        problem = f": expected a batch that is a mapping with {expected}, found {type(batch).__name__}."
        return SettingError("model", problem)
    remedy = ""
    if "tokens" in batch:
        remedy = "; model=gpt takes tokens"
    elif "label" in batch or "target" in batch:
        remedy = "; to classify, use model=mlp; to predict a number, model=mlp_regressor"
        if "target" in batch and "label" in expected:
            remedy = "; to predict the number in target, use model=mlp_regressor; to classify the rows of a table by a "
            remedy += "column y of numbers, use 'data.types={y: category}'"
    return SettingError("model", f": expected {expected} in a batch, found {', '.join(map(str, batch))}{remedy}.")


def check_floats(name: str, given: Tensor, weight: Tensor) -> None:
    """Check that a tensor has the same dtype as the weights, because none of the precision settings casts the data.

    Raises:
        SettingError: if the dtypes differ; the message names both dtypes.
    """
    if given.dtype != weight.dtype:
        problem = f": expected {name} in {weight.dtype}, the data has {name} in {given.dtype}; convert the data."
        raise SettingError("model", problem)


def tokens_of(batch: Mapping[str, Tensor], least: int = 1, most: int | None = None) -> Tensor:
    """Return the tokens of a batch, of shape B x S. ``least`` and ``most`` (None: no limit) limit S.

    Raises:
        SettingError: for a batch without tokens, or with tokens of another shape.
    """
    try:
        tokens_BS = batch["tokens"]
    except (LookupError, TypeError):
        raise not_taken(batch, "tokens") from None
    if tokens_BS.ndim != 2 or tokens_BS.shape[1] < least or (most is not None and tokens_BS.shape[1] > most):
        expected = f"tokens of shape batch x ({least} {'or more' if most is None else f'to {most}'})"
        raise SettingError("model", f": expected {expected}, the data has tokens of shape {tuple(tokens_BS.shape)}.")
    return tokens_BS


def predict_next(
    logits: Callable[[Tensor], Tensor], batch: Mapping[str, Tensor], length: int, ignored: int
) -> dict[str, Tensor]:
    """Return the predictions of a language model for the token after each row of a batch.

    Args:
        logits: function from tokens, B x T, to the logits of the next token at each position, B x T x V.
        batch: batch with ``tokens`` of B rows. Padding may only follow the tokens of a row.
        length: largest number of tokens that the model reads. Only the last ``length`` tokens of a row are read.
        ignored: value of padding.

    Returns:
        ``prediction``: the most likely token, of shape B. ``probability``: B x V.

    Raises:
        SettingError: for a batch without tokens, or with tokens of another shape.
    """
    read_BT, last_B = _last_tokens(tokens_of(batch), length, ignored)
    logits_BV = logits(read_BT)[torch.arange(len(last_B), device=last_B.device), last_B]
    return {"prediction": logits_BV.argmax(dim=-1), "probability": logits_BV.softmax(dim=-1)}


def _last_tokens(tokens_BS: Tensor, length: int, ignored: int) -> tuple[Tensor, Tensor]:
    """Return the last tokens of each row, and the index, within these tokens, of the last one that is not padding.

    Args:
        tokens_BS: tokens of B rows. Padding may only follow the tokens of a row.
        length: largest number of tokens to return.
        ignored: value of padding, which is replaced by 0.

    Returns:
        Tokens of shape B x T with T of at most ``length``, and indices of shape B.
    """
    num_tokens_B = (tokens_BS != ignored).sum(dim=1)
    first_B = (num_tokens_B - length).clamp_min(0)
    index_BT = first_B[:, None] + torch.arange(min(length, tokens_BS.shape[1]), device=tokens_BS.device)
    read_BT = tokens_BS.gather(1, index_BT.clamp_max(tokens_BS.shape[1] - 1))
    return read_BT.masked_fill(read_BT == ignored, 0), (num_tokens_B - first_B - 1).clamp_min(0)
