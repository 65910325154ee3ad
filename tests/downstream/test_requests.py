"""Requests are answered from the model's logits: log-likelihoods of continuations, and generated tokens."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import tiny
from loopwright import Callback, Trainer, ValidationCallback, ValidationLoop
from loopwright.data import Loader
from loopwright.downstream import ByteTokenizer, EleutherEvalHarnessLoop
from loopwright.downstream.requests import (
    Batches,
    Prompts,
    Sampling,
    likelihoods,
    padded_prompts,
    rows_to_read,
    scoring,
)
from loopwright.errors import SettingError

VOCABULARY = 7


class Chain:
    """A language model in which the next token depends on the last token only, through a table of probabilities."""

    context_length = 16

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.probs_VV = torch.rand(VOCABULARY, VOCABULARY, generator=generator, dtype=torch.float64).softmax(dim=1)
        self.num_read: list[int] = []

    def logits(self, tokens_BT: Tensor) -> Tensor:
        """Return log-probabilities, B x T x V."""
        assert tokens_BT.shape[1] <= self.context_length
        self.num_read.append(tokens_BT.shape[0])
        return self.probs_VV.log()[tokens_BT]


TOKENS = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=5)


@given(st.lists(st.tuples(TOKENS, TOKENS), min_size=1, max_size=6), st.integers(1, 4))
def test_log_likelihoods_are_sums_over_the_continuation(
    pairs: list[tuple[list[int], list[int]]], batch_size: int
) -> None:
    chain = Chain()
    rows = rows_to_read(pairs, chain.context_length)
    found: dict[int, Any] = {}
    for begin in range(0, len(rows), batch_size):
        group = rows[begin : begin + batch_size]
        found |= dict(likelihoods(group, scoring(group).answer(chain)))
    for i, (context, continuation) in enumerate(pairs):
        before = [context[-1], *continuation[:-1]]
        expected = sum(math.log(chain.probs_VV[a, b]) for a, b in zip(before, continuation, strict=True))
        assert found[i].log_likelihood == pytest.approx(expected, abs=1e-9)
        is_greedy = all(int(chain.probs_VV[a].argmax()) == b for a, b in zip(before, continuation, strict=True))
        assert found[i].is_greedy == is_greedy
    assert [len(row.tokens) for row in rows] == sorted((len(row.tokens) for row in rows), reverse=True)


def test_one_token_choices_share_a_row() -> None:
    rows = rows_to_read([([1, 2], [token]) for token in range(VOCABULARY)], 16)
    assert len(rows) == 1 and len(rows[0].asked) == VOCABULARY


def test_the_beginning_of_a_long_context_is_cut_off() -> None:
    (row,) = rows_to_read([([*range(6)] * 4, [3, 1])], 16)
    assert row.tokens == tuple(([*range(6)] * 4 + [3])[-16:])


@given(st.lists(TOKENS, min_size=1, max_size=5), st.integers(1, 8))
def test_greedy_tokens_of_a_row_do_not_depend_on_other_rows(prompts: list[list[int]], num_tokens: int) -> None:
    chain = Chain()
    tokens_BT, lengths = padded_prompts(prompts)
    ask = Prompts(tokens_BT, lengths, num_tokens, Sampling(), lambda tokens: tokens[-1] == 0)
    generated = ask.answer(chain)["generated"]
    for prompt, tokens in zip(prompts, generated, strict=True):
        expected, last = [], prompt[-1]
        while len(expected) < num_tokens and (not expected or last != 0):
            last = int(chain.probs_VV[last].argmax())
            expected.append(last)
        assert tokens == expected


def test_a_finished_row_is_not_read_again() -> None:
    chain = Chain()
    tokens_BT, lengths = padded_prompts([[1], [2, 2], [3]])
    Prompts(tokens_BT, lengths, 4, Sampling(), lambda tokens: True).answer(chain)
    assert chain.num_read == [3]


def drawn(sampling: Sampling, num: int = 4000) -> Tensor:
    """Return the fraction of draws in which each token follows token 0."""
    chain = Chain()
    torch.manual_seed(0)
    logits_BV = chain.logits(torch.zeros(num, 1, dtype=torch.long))[:, 0]
    return sampling.choose(logits_BV).bincount(minlength=VOCABULARY) / num


def test_sampling_follows_the_probabilities() -> None:
    probs_V = Chain().probs_VV[0]
    assert torch.allclose(drawn(Sampling(temperature=1.0)).double(), probs_V, atol=0.03)
    sharp_V = (probs_V.log() / 0.1).softmax(dim=0)
    assert torch.allclose(drawn(Sampling(temperature=0.1)).double(), sharp_V, atol=0.03)


def test_top_k_and_top_p_exclude_unlikely_tokens() -> None:
    probs_V = Chain().probs_VV[0]
    order = probs_V.argsort(descending=True).tolist()
    assert set(drawn(Sampling(1.0, top_k=2)).nonzero().flatten().tolist()) == set(order[:2])
    share = float(probs_V[order[:3]].sum())
    assert set(drawn(Sampling(1.0, top_p=share - 1e-6)).nonzero().flatten().tolist()) == set(order[:3])
    assert set(drawn(Sampling(1.0, top_p=1e-9)).nonzero().flatten().tolist()) == {order[0]}


def test_bytes_are_tokens() -> None:
    tokenizer = ByteTokenizer()
    assert tokenizer.decode(tokenizer.encode("é\n")) == "é\n"
    assert (tokenizer.prefix_token, tokenizer.end_token) == (10, None)
    with pytest.raises(SettingError, match="prefix='ab': expected a string of one byte"):
        ByteTokenizer("ab")


# A loop that uses another output of the model


class Doubled(ValidationLoop):
    """Reports twice the error of a batch, and no loss."""

    def __init__(self) -> None:
        super().__init__(hook="doubled")

    def predict(self, model: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Return twice the error."""
        return {"error": 2 * model(*args)["error"], "num_items": 3}


def rows() -> Loader:
    return Loader(tiny.rows(8), batch_size=4)


class Probe(ValidationCallback):
    def run_validation(self, trainer: Trainer, loop_idx: int | None, is_last: bool) -> None:
        self.found = trainer.validate(rows(), loop=Doubled()), trainer.validate({"a": rows()})
        torch.rand(3)  # drawing random numbers here does not change the training

    def on_doubled_step_end(self, trainer: Trainer, model: Any, outputs: dict[str, Any], batch: Any) -> None:
        assert set(outputs) == {"error", "num_items"}


def test_outputs_of_a_loop_are_averaged_and_named_after_the_downstream_validation() -> None:
    probe = Probe(name="twice")
    with tiny.trainer(callbacks=[probe]) as ours:
        plain = ours.validate(rows())
        table = ours.validate_all(rows())
    doubled, named = probe.found
    assert doubled == {"twice/error": pytest.approx(2 * plain["val/error"])}
    assert named["twice/a/error"] == plain["val/error"]
    assert [(row.dataloader, sorted(row.metrics)) for row in table] == [
        ("val", ["val/error", "val/loss"]),
        ("twice", ["twice/a/error", "twice/a/loss", "twice/error"]),
    ]


def test_a_model_answers_requests_through_validate() -> None:
    class Listener(Callback):
        def on_eleuther_eval_harness_step_end(
            self, trainer: Trainer, model: Any, outputs: dict[str, Any], batch: Any
        ) -> None:
            answers.append(outputs)

    class Model(torch.nn.Module, Chain):
        def __init__(self) -> None:
            torch.nn.Module.__init__(self)
            Chain.__init__(self)

    answers: list[dict[str, Any]] = []
    rows = rows_to_read([([1], [2]), ([3], [4])], 16)
    with Trainer(Model(), loop=ValidationLoop(), callbacks=[Listener()], device="cpu") as ours:
        assert ours.validate(Batches([rows[:1], rows[1:]], scoring), loop=EleutherEvalHarnessLoop()) == {}
    assert [len(answer["log_probs"]) for answer in answers] == [1, 1]
