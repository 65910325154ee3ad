"""Compares the speed of Loopwright's downstream evaluation with the ``hf`` model of lm-eval, for equal weights.

    python bench/downstream.py [--pairs 7]     # needs the extras eval and lm

Loopwright and ``hf`` evaluate a small GPT-2 with random weights on the CPU. Loopwright and ``hf`` answer 1,000 requests
of each kind: log-likelihoods of choices, rolling log-likelihoods, and greedy generation. Their measurements alternate.
A ratio is the time of ``hf`` divided by the time of Loopwright. If the ratio is above 1, Loopwright is faster. The
times include tokenization.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import random
import statistics
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from loopwright import Trainer, ValidationCallback, ValidationLoop
from loopwright.downstream import EleutherEvalHarnessLoop, TokenizerFile
from loopwright.downstream.language_model import TrainedModel
from loopwright.downstream.requests import Batches
from loopwright.downstream.tasks import read_tasks
from loopwright.models import CausalLM
from loopwright.shipped import task_dir

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import tokenizers
    import transformers
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

NUM_REQUESTS = 1000
BATCH_SIZE = 16
CONTEXT_LENGTH = 256


def main() -> None:
    """Measure the speeds, and print one line for each kind of request."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7)
    num_pairs = parser.parse_args().pairs
    for name in ("lm_eval", "transformers", "loopwright"):
        logging.getLogger(name).setLevel(logging.ERROR)
    transformers.logging.disable_progress_bar()
    documents = _documents()
    with TemporaryDirectory() as name:
        folder = Path(name)
        _save(folder, [context for context, _ in documents])
        answering = Answering()
        trainer = Trainer(CausalLM(folder), loop=ValidationLoop(), callbacks=[answering], loggers=[], device="cpu")
        ours = TrainedModel(
            lambda kind, batches: answering.ask(trainer, kind, batches),
            TokenizerFile(folder / "tokenizer.json"),
            CONTEXT_LENGTH,
            BATCH_SIZE,
        )
        theirs = HFLM(
            pretrained=transformers.GPT2LMHeadModel.from_pretrained(folder),
            tokenizer=transformers.PreTrainedTokenizerFast(
                tokenizer_file=str(folder / "tokenizer.json"), eos_token="<|endoftext|>", pad_token="<|endoftext|>"
            ),
            batch_size=BATCH_SIZE,
            device="cpu",
        )
        print(f"{torch.get_num_threads()} threads, batches of {BATCH_SIZE}, {num_pairs} pairs")
        for kind, requests in _requests(documents).items():
            print(_compared(kind, requests, ours, theirs, num_pairs), flush=True)


class Answering(ValidationCallback):
    """Collects the model's answers in a validation, like the callback `EleutherEvalHarness`."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[dict[str, Any]] = []

    def ask(self, trainer: Trainer, kind: str, batches: Batches) -> list[dict[str, Any]]:
        """Return the model's answers to ``batches``."""
        self.answers = []
        trainer.validate({kind: batches}, loop=EleutherEvalHarnessLoop())
        return self.answers

    def on_eleuther_eval_harness_step_end(
        self, trainer: Trainer, model: torch.nn.Module, outputs: dict[str, Any], batch: Any
    ) -> None:
        """Store the answers of a batch."""
        self.answers.append(outputs)


def _documents() -> list[tuple[str, list[str]]]:
    """Return the context and the choices of each document of the shipped cloze task."""
    assert "cloze" in read_tasks(task_dir())
    lines = (task_dir() / "cloze.jsonl").read_text(encoding="utf-8").split("\n")
    documents = [json.loads(line) for line in lines if line]
    return [(document["context"], document["choices"]) for document in documents]


def _save(folder: Path, texts: list[str]) -> None:
    """Save a tokenizer and a GPT-2 in the formats of the libraries tokenizers and transformers."""
    tokenizer = tokenizers.ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(texts, vocab_size=2000, special_tokens=["<|endoftext|>"], show_progress=False)
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=tokenizer.get_vocab_size(),
        n_positions=CONTEXT_LENGTH,
        n_embd=256,
        n_layer=6,
        n_head=8,
        bos_token_id=0,
        eos_token_id=0,
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)


def _requests(documents: list[tuple[str, list[str]]]) -> dict[str, list[Instance]]:
    """Return 1,000 requests of each kind, with contexts of different lengths."""
    rng = random.Random(0)
    pairs = [(context[rng.randrange(80) :], f" {choice}") for context, choices in documents for choice in choices]
    pairs += [(context[rng.randrange(80, 120) :], f" {choices[0]}") for context, choices in documents]
    texts = [context + choice for context, choice in pairs]
    settings = {"until": ["\n", "."], "max_gen_toks": 16, "do_sample": False}
    arguments: dict[str, list[tuple[Any, ...]]] = {
        "loglikelihood": [*pairs],
        "loglikelihood_rolling": [(text,) for text in texts],
        "generate_until": [(context, settings) for context, _ in pairs],
    }
    return {
        kind: [Instance(kind, {}, each, i) for i, each in enumerate(given[:NUM_REQUESTS])]  # type: ignore[arg-type]
        for kind, given in arguments.items()
    }


def _compared(kind: str, requests: list[Instance], ours: Any, theirs: Any, num_pairs: int) -> str:
    def seconds(answer: Callable[[], Any]) -> float:
        began = time.perf_counter()
        with redirect_stderr(io.StringIO()):  # hf prints its progress for rolling requests even with disable_tqdm
            answer()
        return time.perf_counter() - began

    pairs = []
    for i in range(num_pairs + 1):
        ask_ours: Callable[[], Any] = lambda: getattr(ours, kind)(requests)  # noqa: E731
        ask_theirs: Callable[[], Any] = lambda: getattr(theirs, kind)(requests, disable_tqdm=True)  # noqa: E731
        both = (ask_ours, ask_theirs) if i % 2 else (ask_theirs, ask_ours)
        times = [seconds(ask) for ask in both]
        pairs.append(times if i % 2 else times[::-1])
    ratios = sorted(theirs / ours for ours, theirs in pairs[1:])  # the first pair is a warm-up and is not counted
    ours_per_second, theirs_per_second = (
        len(requests) / statistics.median(times) for times in zip(*pairs[1:], strict=True)
    )
    quartiles = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else [ratios[0]] * 3
    return (
        f"{kind}: {len(requests)} requests, ours {ours_per_second:.0f}/s, hf {theirs_per_second:.0f}/s, "
        f"ratio {statistics.median(ratios):.3f} ({quartiles[0]:.3f} to {quartiles[2]:.3f})"
    )


if __name__ == "__main__":
    main()
