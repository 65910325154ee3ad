"""Requests to a language model for log-likelihoods or generated tokens, and a validation loop for these requests.

Shape suffixes: B rows of a batch, T positions, N target tokens, V vocabulary size.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from loopwright.loop import ValidationLoop
from loopwright.text_protocols import CachingLanguageModel, LanguageModel


class Request(Protocol):
    """A batch of requests."""

    def answer(self, model: LanguageModel) -> dict[str, Any]:
        """Return the answers of ``model`` to the requests."""
        ...


class EleutherEvalHarnessLoop(ValidationLoop):
    """Validation loop over batches of requests. No loss is computed.

    A batch calls the model's ``logits``. To generate tokens with a model that caches earlier tokens, a batch calls
    ``begin`` and ``go_on``.

    The hooks of this loop are ``on_eleuther_eval_harness_start``, ``…_end``, ``…_exception``, ``…_batch_start``,
    ``…_batch_end``, ``…_step_start`` and ``…_step_end``. The hooks ``…_step_end`` and ``…_batch_end`` receive the
    answers as ``outputs``.

    Args:
        eval_steps: number of batches to answer; None means all batches.
    """

    def __init__(self, eval_steps: int | None = None) -> None:
        super().__init__(eval_steps, hook="eleuther_eval_harness")

    def predict(self, model: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Return the answers to a batch of requests. The batch is the only argument after ``model``."""
        (request,) = args
        return request.answer(model)


class Batches:
    """A dataloader that builds each batch only when the batch is read.

    Args:
        groups: one group of requests for each batch.
        make: function that builds a batch from a group.
    """

    def __init__(self, groups: Sequence[Any], make: Callable[[Any], Request]) -> None:
        self._groups = groups
        self._make = make

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self._groups)

    def __iter__(self) -> Iterator[Request]:
        """Yield the batches in order."""
        return map(self._make, self._groups)


# Log-likelihoods


@dataclass(frozen=True, slots=True)
class Scoring:
    """Requests for the log-probabilities of target tokens.

    The model predicts the target ``targets_N[n]`` from the tokens of row ``rows_N[n]`` up to and including position
    ``positions_N[n]``.

    Attributes:
        tokens_BT: tokens of the rows, int64; shorter rows are padded with zeros at the end.
        rows_N: index of each target's row, int64, in [0, B).
        positions_N: index of the last token before each target, int64, in [0, T).
        targets_N: target tokens, int64.
    """

    tokens_BT: Tensor
    rows_N: Tensor
    positions_N: Tensor
    targets_N: Tensor

    def answer(self, model: LanguageModel) -> dict[str, Tensor]:
        """Compute the log-probabilities of the targets.

        Returns:
            Two tensors of shape (N,). ``log_probs`` contains the log-probability of each target in nats.
            ``is_likeliest`` contains whether the target has the largest logit.
        """
        logits_NV = model.logits(self.tokens_BT)[self.rows_N, self.positions_N]
        # In a 16-bit dtype, the rounding errors of log-probabilities would be too large.
        dtype = torch.promote_types(logits_NV.dtype, torch.float32)
        log_probs_NV = logits_NV.log_softmax(dim=-1, dtype=dtype)
        return {
            "log_probs": log_probs_NV.gather(1, self.targets_N.unsqueeze(1)).squeeze(1),
            "is_likeliest": logits_NV.argmax(dim=-1) == self.targets_N,
        }


class Likelihood(NamedTuple):
    """The log-likelihood of a continuation in nats, and whether greedy decoding yields the continuation."""

    log_likelihood: float
    is_greedy: bool


class Row(NamedTuple):
    """A row of input tokens, and the requests that the logits of this row answer.

    Attributes:
        tokens: input tokens of the model.
        asked: requests, as pairs (index of the request, continuation).
    """

    tokens: tuple[int, ...]
    asked: list[tuple[int, list[int]]]


def rows_to_read(pairs: Sequence[tuple[list[int], list[int]]], context_length: int) -> list[Row]:
    """Return the rows for (context, continuation) pairs, ordered from the longest row to the shortest.

    The input tokens of a pair are all its tokens except the last token. A row contains at most the last
    ``context_length`` input tokens. Pairs with equal input tokens share a row. For example, the answers to one question
    share a row if each answer is a single token.
    """
    asked: dict[tuple[int, ...], list[tuple[int, list[int]]]] = defaultdict(list)
    for request, (context, continuation) in enumerate(pairs):
        asked[tuple((context + continuation)[-(context_length + 1) : -1])].append((request, continuation))
    return [Row(*item) for item in sorted(asked.items(), key=lambda item: (-len(item[0]), item[0]))]


def scoring(rows: Sequence[Row]) -> Scoring:
    """Build a batch of requests from ``rows``. Shorter rows are padded to the length of the longest row."""
    tokens_BT = _padded([row.tokens for row in rows])
    places: list[tuple[int, int, int]] = []
    for i, row in enumerate(rows):
        for _, continuation in row.asked:
            first = len(row.tokens) - len(continuation)
            places += ((i, first + k, token) for k, token in enumerate(continuation))
    rows_N, positions_N, targets_N = torch.tensor(places).T
    return Scoring(tokens_BT, rows_N, positions_N, targets_N)


def likelihoods(rows: Sequence[Row], answer: dict[str, Tensor]) -> Iterator[tuple[int, Likelihood]]:
    """Yield (index of the request, likelihood) for each request in ``rows``.

    Args:
        rows: rows of a batch that `scoring` built.
        answer: result of `Scoring.answer` for this batch.
    """
    log_probs, is_likeliest = answer["log_probs"].double().tolist(), answer["is_likeliest"].tolist()
    begin = 0
    for row in rows:
        for request, continuation in row.asked:
            end = begin + len(continuation)
            yield request, Likelihood(sum(log_probs[begin:end]), all(is_likeliest[begin:end]))
            begin = end


# Generation


@dataclass(frozen=True, slots=True)
class Sampling:
    """Settings for choosing the next token.

    Attributes:
        temperature: divisor of the logits; with 0 the most likely token is chosen.
        top_k: number of candidates, which are the most likely tokens; None means all tokens.
        top_p: cumulative probability in (0, 1]. The candidates are the smallest set of most likely tokens whose total
            probability is at least ``top_p``. None means all tokens.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None

    def choose(self, logits_BV: Tensor) -> Tensor:
        """Choose a token for each row. Sampling uses torch's global random generator."""
        if self.temperature == 0:
            return logits_BV.argmax(dim=-1)
        # Shift the largest logit to 0, so that it does not overflow when it is divided by a small temperature.
        logits_BV = (logits_BV - logits_BV.amax(dim=-1, keepdim=True)) / self.temperature
        if self.top_k is not None and self.top_k < logits_BV.shape[1]:
            least_B1 = logits_BV.topk(self.top_k).values[:, -1:]
            logits_BV = logits_BV.masked_fill(logits_BV < least_B1, -torch.inf)
        if self.top_p is not None and self.top_p < 1:
            sorted_BV, order_BV = logits_BV.sort(dim=-1, descending=True)
            probs_BV = sorted_BV.softmax(dim=-1)
            is_left_out = probs_BV.cumsum(dim=-1) - probs_BV >= self.top_p  # the more likely tokens reach top_p
            logits_BV = logits_BV.masked_fill(is_left_out.scatter(1, order_BV, is_left_out), -torch.inf)
        return torch.multinomial(logits_BV.softmax(dim=-1), num_samples=1).squeeze(1)


@dataclass(frozen=True, slots=True)
class Prompts:
    """Requests for continuations of prompts. The prompts may differ in length.

    Attributes:
        tokens_BT: tokens of the prompts, int64; shorter rows are padded with zeros at the end.
        lengths: number of tokens in each prompt, 1 or more.
        num_tokens: maximum number of tokens to generate for each prompt.
        sampling: settings for choosing the next token.
        is_done: function that receives the generated tokens of a prompt and returns whether generation is complete.
    """

    tokens_BT: Tensor
    lengths: tuple[int, ...]
    num_tokens: int
    sampling: Sampling
    is_done: Callable[[list[int]], bool]

    def answer(self, model: LanguageModel) -> dict[str, list[list[int]]]:
        """Generate tokens. The entry ``generated`` of the result contains a list of tokens for each prompt."""
        generated: list[list[int]] = [[] for _ in self.lengths]
        reader: _Caching | _Rereading
        if isinstance(model, CachingLanguageModel) and model.caches:
            reader = _Caching(self, model)
        else:
            reader = _Rereading(self, model)
        unfinished = list(range(len(self.lengths)))
        while True:
            chosen_B = self.sampling.choose(reader.logits_BV)
            for i, token in zip(unfinished, chosen_B.tolist(), strict=True):
                generated[i].append(token)
            is_left = [len(generated[i]) < self.num_tokens and not self.is_done(generated[i]) for i in unfinished]
            if not any(is_left):
                return {"generated": generated}
            unfinished = [i for i, is_it in zip(unfinished, is_left, strict=True) if is_it]
            reader.advance(chosen_B, torch.tensor(is_left, device=chosen_B.device))


class _Rereading:
    """Generates tokens without a cache. For every new token, the model processes each unfinished row from its start.

    Attributes:
        logits_BV: logits of the next token of each unfinished row.
    """

    def __init__(self, prompts: Prompts, model: LanguageModel) -> None:
        self._model = model
        self._tokens_BT = nn.functional.pad(prompts.tokens_BT, (0, prompts.num_tokens))
        self._ends_B = torch.tensor(prompts.lengths, device=self._tokens_BT.device)
        self.logits_BV = self._read()

    def advance(self, tokens_B: Tensor, is_left_B: Tensor) -> None:
        """Append a token to each row, remove the finished rows, and compute the logits of the next tokens."""
        self._tokens_BT[torch.arange(len(tokens_B), device=tokens_B.device), self._ends_B] = tokens_B
        self._tokens_BT, self._ends_B = self._tokens_BT[is_left_B], self._ends_B[is_left_B] + 1
        self.logits_BV = self._read()

    def _read(self) -> Tensor:
        logits_BTV = self._model.logits(self._tokens_BT[:, : int(self._ends_B.max())])
        return logits_BTV[torch.arange(len(logits_BTV), device=logits_BTV.device), self._ends_B - 1]


class _Caching:
    """Generates tokens with the model's cache, so that the model processes each token only once.

    Finished rows stay in the batch until all rows are finished.
    """

    def __init__(self, prompts: Prompts, model: CachingLanguageModel) -> None:
        self._model = model
        lengths_B = torch.tensor(prompts.lengths, device=prompts.tokens_BT.device)
        self.logits_BV, self._read = model.begin(prompts.tokens_BT, lengths_B)
        self._rows = torch.arange(len(lengths_B), device=lengths_B.device)
        self._num_rows = len(lengths_B)

    def advance(self, tokens_B: Tensor, is_left_B: Tensor) -> None:
        """Append a token to each unfinished row, and compute the logits of the next tokens."""
        all_tokens_B = tokens_B.new_zeros(self._num_rows)
        all_tokens_B[self._rows] = tokens_B
        logits_BV, self._read = self._model.go_on(all_tokens_B, self._read)
        self._rows = self._rows[is_left_B]
        self.logits_BV = logits_BV[self._rows]


def padded_prompts(prompts: Sequence[list[int]]) -> tuple[Tensor, tuple[int, ...]]:
    """Return the prompts as one padded int64 tensor of shape (B, T), and the length of each prompt."""
    return _padded(prompts), tuple(map(len, prompts))


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])
