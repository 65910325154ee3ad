"""What an evaluation asks of a language model, as batches of a validation: log-likelihoods and generated tokens.

Shape suffixes: B rows of a batch, T positions, N tokens whose probability is asked, V vocabulary.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from loopwright.loop import ValidationLoop
from loopwright.protocols import CachingLanguageModel, LanguageModel


class Request(Protocol):
    """A batch of requests."""

    def answer(self, model: LanguageModel) -> dict[str, Any]:
        """What the model answers."""
        ...


class EleutherEvalHarnessLoop(ValidationLoop):
    """Validates on batches of requests: each is asked of the model, by its ``logits``, and answered without a loss.

    Its hooks are ``on_eleuther_eval_harness_start``, ``…_end``, ``…_exception``, ``…_batch_start``, ``…_batch_end``,
    ``…_step_start`` and ``…_step_end``; the last two of these see the answers as outputs.

    Args:
        eval_steps: batches of requests; None: all.
    """

    def __init__(self, eval_steps: int | None = None) -> None:
        super().__init__(eval_steps, hook="eleuther_eval_harness")

    def predict(self, model: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Answer the batch of requests that is the one argument."""
        (request,) = args
        return request.answer(model)


class Batches:
    """A dataloader over batches that are made as they are read.

    Args:
        groups: one for each batch.
        make: a group's batch.
    """

    def __init__(self, groups: Sequence[Any], make: Callable[[Any], Request]) -> None:
        self._groups = groups
        self._make = make

    def __len__(self) -> int:
        """Batches."""
        return len(self._groups)

    def __iter__(self) -> Iterator[Request]:
        """Make each."""
        return map(self._make, self._groups)


# Log-likelihoods


@dataclass(frozen=True, slots=True)
class Scoring:
    """Asks for log-probabilities: of ``targets[n]`` after the tokens of row ``rows[n]`` up to ``positions[n]``.

    Attributes:
        tokens_BT: int64, rows filled up with zeros at their ends.
        rows_N: int64, in [0, B).
        positions_N: int64, in [0, T).
        targets_N: int64.
    """

    tokens_BT: Tensor
    rows_N: Tensor
    positions_N: Tensor
    targets_N: Tensor

    def answer(self, model: LanguageModel) -> dict[str, Tensor]:
        """``log_probs`` (nats) and ``is_likeliest`` (bool) of the N targets."""
        logits_NV = model.logits(self.tokens_BT)[self.rows_N, self.positions_N]
        dtype = torch.promote_types(logits_NV.dtype, torch.float32)  # half precision would round the sum of a row
        log_probs_NV = logits_NV.log_softmax(dim=-1, dtype=dtype)
        return {
            "log_probs": log_probs_NV.gather(1, self.targets_N.unsqueeze(1)).squeeze(1),
            "is_likeliest": logits_NV.argmax(dim=-1) == self.targets_N,
        }


class Likelihood(NamedTuple):
    """Of a continuation: its log-likelihood in nats, and whether greedy decoding would have written it."""

    log_likelihood: float
    is_greedy: bool


class Row(NamedTuple):
    """Tokens that are read once, for all continuations that they are asked for: (request, continuation)."""

    tokens: tuple[int, ...]
    asked: list[tuple[int, list[int]]]


def rows_to_read(pairs: Sequence[tuple[list[int], list[int]]], context_length: int) -> list[Row]:
    """Rows for pairs of context and continuation, longest first; beginnings beyond ``context_length`` are left out.

    Pairs that differ in their last token only share a row, as choices of one token do.
    """
    asked: dict[tuple[int, ...], list[tuple[int, list[int]]]] = defaultdict(list)
    for request, (context, continuation) in enumerate(pairs):
        asked[tuple((context + continuation)[-(context_length + 1) : -1])].append((request, continuation))
    return [Row(*item) for item in sorted(asked.items(), key=lambda item: (-len(item[0]), item[0]))]


def scoring(rows: Sequence[Row]) -> Scoring:
    """One batch of rows, padded to the longest."""
    tokens_BT = _padded([row.tokens for row in rows])
    places: list[tuple[int, int, int]] = []
    for i, row in enumerate(rows):
        for _, continuation in row.asked:
            first = len(row.tokens) - len(continuation)
            places += ((i, first + k, token) for k, token in enumerate(continuation))
    rows_N, positions_N, targets_N = torch.tensor(places).T
    return Scoring(tokens_BT, rows_N, positions_N, targets_N)


def likelihoods(rows: Sequence[Row], answer: dict[str, Tensor]) -> Iterator[tuple[int, Likelihood]]:
    """(request, what was asked of it), from the answer to the batch of ``rows``."""
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
    """How the next token is chosen.

    Attributes:
        temperature: by which logits are divided; 0 takes the likeliest token.
        top_k: tokens that are drawn from, the likeliest ones; None: all.
        top_p: the likeliest tokens are drawn from until their probabilities reach this; None: all.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None

    def choose(self, logits_BV: Tensor) -> Tensor:
        """A token for each row, by torch's global stream."""
        if self.temperature == 0:
            return logits_BV.argmax(dim=-1)
        # The likeliest first becomes 0, which no temperature makes too large.
        logits_BV = (logits_BV - logits_BV.amax(dim=-1, keepdim=True)) / self.temperature
        if self.top_k is not None and self.top_k < logits_BV.shape[1]:
            least_B1 = logits_BV.topk(self.top_k).values[:, -1:]
            logits_BV = logits_BV.masked_fill(logits_BV < least_B1, -torch.inf)
        if self.top_p is not None and self.top_p < 1:
            sorted_BV, order_BV = logits_BV.sort(dim=-1, descending=True)
            probs_BV = sorted_BV.softmax(dim=-1)
            is_left_out = probs_BV.cumsum(dim=-1) - probs_BV >= self.top_p  # what comes before suffices
            logits_BV = logits_BV.masked_fill(is_left_out.scatter(1, order_BV, is_left_out), -torch.inf)
        return torch.multinomial(logits_BV.softmax(dim=-1), num_samples=1).squeeze(1)


@dataclass(frozen=True, slots=True)
class Prompts:
    """Asks for continuations of prompts of any lengths.

    Attributes:
        tokens_BT: int64, rows filled up with zeros at their ends.
        lengths: of each row, 1 or more.
        num_tokens: to be generated at most.
        sampling: how they are chosen.
        is_done: whether what was generated of a row so far ends it.
    """

    tokens_BT: Tensor
    lengths: tuple[int, ...]
    num_tokens: int
    sampling: Sampling
    is_done: Callable[[list[int]], bool]

    def answer(self, model: LanguageModel) -> dict[str, list[list[int]]]:
        """``generated``: the tokens after each prompt."""
        generated: list[list[int]] = [[] for _ in self.lengths]
        read_on: _Caching | _Rereading
        if isinstance(model, CachingLanguageModel) and model.caches:
            read_on = _Caching(self, model)
        else:
            read_on = _Rereading(self, model)
        going = list(range(len(self.lengths)))
        while True:
            chosen_B = self.sampling.choose(read_on.logits_BV)
            for i, token in zip(going, chosen_B.tolist(), strict=True):
                generated[i].append(token)
            is_left = [len(generated[i]) < self.num_tokens and not self.is_done(generated[i]) for i in going]
            if not any(is_left):
                return {"generated": generated}
            going = [i for i, is_it in zip(going, is_left, strict=True) if is_it]
            read_on.go_on(chosen_B, torch.tensor(is_left, device=chosen_B.device))


class _Rereading:
    """Reads each row from its beginning for each token; a row that is done is read no more.

    Attributes:
        logits_BV: of the token after each row that goes on.
    """

    def __init__(self, prompts: Prompts, model: LanguageModel) -> None:
        self._model = model
        self._tokens_BT = nn.functional.pad(prompts.tokens_BT, (0, prompts.num_tokens))
        self._ends_B = torch.tensor(prompts.lengths, device=self._tokens_BT.device)
        self.logits_BV = self._read()

    def go_on(self, tokens_B: Tensor, is_left_B: Tensor) -> None:
        """Take a token in each row, and leave out the rows that are done."""
        self._tokens_BT[torch.arange(len(tokens_B), device=tokens_B.device), self._ends_B] = tokens_B
        self._tokens_BT, self._ends_B = self._tokens_BT[is_left_B], self._ends_B[is_left_B] + 1
        self.logits_BV = self._read()

    def _read(self) -> Tensor:
        logits_BTV = self._model.logits(self._tokens_BT[:, : int(self._ends_B.max())])
        return logits_BTV[torch.arange(len(logits_BTV), device=logits_BTV.device), self._ends_B - 1]


class _Caching:
    """Reads each token once, in all rows for as long as one of them goes on."""

    def __init__(self, prompts: Prompts, model: CachingLanguageModel) -> None:
        self._model = model
        lengths_B = torch.tensor(prompts.lengths, device=prompts.tokens_BT.device)
        self.logits_BV, self._read = model.begin(prompts.tokens_BT, lengths_B)
        self._rows = torch.arange(len(lengths_B), device=lengths_B.device)
        self._num_rows = len(lengths_B)

    def go_on(self, tokens_B: Tensor, is_left_B: Tensor) -> None:
        """As `_Rereading` does it."""
        all_tokens_B = tokens_B.new_zeros(self._num_rows)
        all_tokens_B[self._rows] = tokens_B
        logits_BV, self._read = self._model.go_on(all_tokens_B, self._read)
        self._rows = self._rows[is_left_B]
        self.logits_BV = logits_BV[self._rows]


def padded_prompts(prompts: Sequence[list[int]]) -> tuple[Tensor, tuple[int, ...]]:
    """Prompts as one tensor, B x T, and their lengths."""
    return _padded(prompts), tuple(map(len, prompts))


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])
