"""`TrainedModel`: answers requests of the Evaluation Harness with the model of a trainer."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from loopwright.downstream.requests import (
    Batches,
    Likelihood,
    Prompts,
    Sampling,
    likelihoods,
    padded_prompts,
    rows_to_read,
    scoring,
)
from loopwright.errors import DataError, SettingError, did_you_mean, refuse
from loopwright.text_protocols import Tokenizer

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

_T = TypeVar("_T")
_MAX_NEW_TOKENS = 256  # for tasks without max_gen_toks; equal to the harness's default
_SAMPLING = ("do_sample", "temperature", "top_k", "top_p")
_log = logging.getLogger("loopwright")

# A function that runs a validation and returns the model's answer to each batch. The arguments are the kind of the
# requests and the batches of requests.
Ask = Callable[[str, Batches], list[dict[str, Any]]]


class TrainedModel:
    """Answers requests of the harness by running validations of the trainer's model.

    This class has the attributes and methods that ``lm_eval.evaluate`` uses, and calls methods of the harness's
    ``TemplateLM``. This class is not a subclass of ``TemplateLM``, because importing this module would then import
    ``lm_eval``.

    Args:
        ask: function that runs a validation on batches of requests and returns the model's answer to each batch.
        tokenizer: tokenizer of the model.
        context_length: maximum number of tokens in one input row of the model.
        batch_size: number of token rows in one forward pass of the model.
    """

    rank = 0
    world_size = 1
    backend = "causal"

    def __init__(self, ask: Ask, tokenizer: Tokenizer, context_length: int, batch_size: int) -> None:
        self._ask = ask
        self._tokens = tokenizer
        self._context_length = context_length
        self._batch_size = batch_size

    @property
    def prefix_token_id(self) -> int:
        """Token that the model reads first if an evaluation request gives the model no context (text to continue)."""
        return self._tokens.prefix_token

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Return the tokens of ``string``. Special tokens are never added."""
        return self._tokens.encode(string)

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        from lm_eval.api.model import TemplateLM  # optional dependency

        pair: tuple[list[int], list[int]] = TemplateLM._encode_pair(self, context, continuation)
        return pair

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Return each continuation's log-likelihood in nats, and whether greedy decoding yields the continuation."""
        from lm_eval.api.model import TemplateLM  # optional dependency

        answers: list[tuple[float, bool]] = TemplateLM.loglikelihood(self, requests, disable_tqdm=True)
        return answers

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Return the log-likelihood of each string in nats.

        Every token is predicted once. A string that is longer than the model's context is divided into windows. In each
        window, a token is predicted from the earlier tokens of the window.
        """
        from lm_eval.utils import get_rolling_token_windows, make_disjoint_window  # optional dependency

        pairs: list[tuple[list[int], list[int]]] = []
        owners: list[int] = []
        for owner, (text,) in enumerate(request.args for request in requests):
            windows = get_rolling_token_windows(
                token_list=self.tok_encode(text),
                prefix_token=self.prefix_token_id,
                max_seq_len=self._context_length,
                context_len=1,
            )
            pairs += map(make_disjoint_window, windows)
            owners += [owner] * (len(pairs) - len(owners))
        totals = [0.0] * len(requests)
        for owner, found in zip(owners, self._score("loglikelihood_rolling", pairs), strict=True):
            totals[owner] += found.log_likelihood
        return totals

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Return the text that the model generates after each context, up to a stop sequence or the token limit."""
        by_settings: dict[str, list[int]] = {}
        for i, request in enumerate(requests):
            by_settings.setdefault(repr(sorted(request.args[1].items())), []).append(i)
        texts = [""] * len(requests)
        for numbers in by_settings.values():
            settings = Generation(requests[numbers[0]].args[1], self._tokens, self._context_length)
            prompts = {i: self.tok_encode(requests[i].args[0]) or [self.prefix_token_id] for i in numbers}
            self._warn_about_cuts("generate_until", map(len, prompts.values()), settings.prompt_length)
            prompts = {i: tokens[-settings.prompt_length :] for i, tokens in prompts.items()}
            ordered = sorted(numbers, key=lambda i: (-len(prompts[i]), prompts[i]))
            groups = self._groups(ordered)
            made = partial(_prompts, prompts, settings)
            for group, answer in zip(groups, self._ask("generate_until", Batches(groups, made)), strict=True):
                for i, tokens in zip(group, answer["generated"], strict=True):
                    texts[i] = settings.text(tokens)
        return texts

    def _loglikelihood_tokens(
        self, requests: list[tuple[Any, list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        return [*self._score("loglikelihood", [(context, continuation) for _, context, continuation in requests])]

    def _score(self, kind: str, pairs: Sequence[tuple[list[int], list[int]]]) -> list[Likelihood]:
        longest = max((len(continuation) for _, continuation in pairs), default=0)
        if longest > self._context_length:
            expected = f"expected at most {self._context_length}, the model's context length"
            raise DataError(f"{kind}: a continuation has {longest} tokens; {expected}.")
        asked = [i for i, (_, continuation) in enumerate(pairs) if continuation]
        found = dict.fromkeys(range(len(pairs)), Likelihood(0.0, is_greedy=True))  # for empty continuations
        self._warn_about_cuts(kind, (len(pairs[i][0]) + len(pairs[i][1]) - 1 for i in asked), self._context_length)
        rows = rows_to_read([pairs[i] for i in asked], self._context_length)
        groups = self._groups(rows)
        for group, answer in zip(groups, self._ask(kind, Batches(groups, scoring)), strict=True):
            found.update({asked[i]: likelihood for i, likelihood in likelihoods(group, answer)})
        return [*found.values()]

    def _groups(self, ordered: Sequence[_T]) -> list[Sequence[_T]]:
        return [ordered[k : k + self._batch_size] for k in range(0, len(ordered), self._batch_size)]

    def _warn_about_cuts(self, kind: str, lengths: Iterable[int], most: int) -> None:
        num_cut = sum(length > most for length in lengths)
        if num_cut:
            problem = f"{num_cut:,} requests are longer than the {most:,} tokens that fit into the model's context"
            _log.warning("%s: %s; their beginnings are cut off.", kind, problem)


class Generation:
    """Settings for generating text.

    Args:
        given: settings as named in ``generation_kwargs`` of a task.
        tokenizer: tokenizer of the model.
        context_length: maximum number of tokens in one input row of the model.

    Raises:
        SettingError: if a setting is unknown or invalid.
    """

    def __init__(self, given: Mapping[str, Any], tokenizer: Tokenizer, context_length: int) -> None:
        from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs  # optional dependency

        _check_types(given)
        settings = dict(normalize_gen_kwargs(dict(given), _MAX_NEW_TOKENS))
        end = None if tokenizer.end_token is None else tokenizer.decode([tokenizer.end_token])
        self._tokenizer = tokenizer
        self._stops = [stop for stop in handle_stop_sequences(settings.pop("until"), eos=end) if stop]
        self.num_tokens = int(settings.pop("max_gen_toks"))
        self.prompt_length = context_length - self.num_tokens
        if self.num_tokens < 1 or self.prompt_length < 1:
            expected = f"at least 1, and fewer than the {context_length} tokens that the model reads"
            raise refuse("gen_kwargs.max_gen_toks", self.num_tokens, expected)
        is_drawn, temperature = settings.pop("do_sample"), _number("temperature", settings.pop("temperature", 1.0))
        self.sampling = Sampling(
            temperature=temperature if is_drawn else 0.0,
            top_k=_top_k(settings.pop("top_k", None)),
            top_p=_top_p(settings.pop("top_p", None)),
        )
        for name in settings:
            known = ", ".join((*_SAMPLING, "until", "max_gen_toks"))
            raise SettingError(
                "gen_kwargs", f": no such setting {name}. Available: {known}.{did_you_mean(name, known.split(', '))}"
            )

    def is_done(self, tokens: list[int]) -> bool:
        """Return whether the text of ``tokens`` contains a stop sequence, or ``tokens`` ends with the end token."""
        if tokens[-1] == self._tokenizer.end_token:
            return True
        text = self._tokenizer.decode(tokens)
        return any(stop in text for stop in self._stops)

    def text(self, tokens: list[int]) -> str:
        """Decode ``tokens``, and return the text before the first stop sequence."""
        from lm_eval.models.utils import postprocess_generated_text  # optional dependency

        text: str = postprocess_generated_text(self._tokenizer.decode(tokens), self._stops, None)
        return text


def _prompts(prompts: Mapping[int, list[int]], settings: Generation, group: Sequence[int]) -> Prompts:
    tokens_BT, lengths = padded_prompts([prompts[i] for i in group])
    return Prompts(tokens_BT, lengths, settings.num_tokens, settings.sampling, settings.is_done)


def _check_types(given: Mapping[str, Any]) -> None:
    """Refuse values that the harness would convert silently, such as ``"false"`` to true or 2.9 tokens to 2."""
    until = given.get("until", [])
    if not all(isinstance(stop, str) for stop in ([until] if isinstance(until, str) else until or [])):
        raise refuse("gen_kwargs.until", until, "a string or a list of strings")
    if not isinstance(given.get("do_sample", False), bool):
        raise refuse("gen_kwargs.do_sample", given["do_sample"], "true or false")
    for name in ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens"):
        if name in given and type(given[name]) is not int:
            raise refuse(f"gen_kwargs.{name}", given[name], "a whole number of tokens, 1 or more")
    if "temperature" in given:
        _number("temperature", given["temperature"])


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise refuse(f"gen_kwargs.{name}", value, "a finite number, 0 or more")
    return float(value)


def _top_k(value: Any) -> int | None:
    if value is not None and (type(value) is not int or value < 0):
        raise refuse("gen_kwargs.top_k", value, "a whole number, 1 or more, or null for all tokens")
    return value or None


def _top_p(value: Any) -> float | None:
    if value is None:
        return None
    share = _number("top_p", value)
    if not 0 < share <= 1:
        raise refuse("gen_kwargs.top_p", value, "a number in (0, 1], or null for all tokens")
    return share
