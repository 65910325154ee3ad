"""Tests of `CausalLM`: training, generation, and the errors for models that are not causal language models."""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from loopwright import Checkpointing, Trainer, TrainingLoop
from loopwright.data import Loader
from loopwright.data.sets.text_windows import TextWindows
from loopwright.downstream.requests import Prompts, Sampling, padded_prompts
from loopwright.errors import SettingError
from loopwright.models import CausalLM

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # importing transformers may raise warnings
    transformers = pytest.importorskip("transformers", reason="needs the extra: pip install 'loopwright[lm]'")

pytestmark = pytest.mark.extras

GPT2 = {"model_type": "gpt2", "vocab_size": 256, "n_positions": 32, "n_embd": 16, "n_layer": 1, "n_head": 2}
LLAMA = {
    "model_type": "llama",
    "vocab_size": 256,
    "max_position_embeddings": 32,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
BERT = {"model_type": "bert", "hidden_size": 24, "intermediate_size": 24, "num_hidden_layers": 1}


def trainer(run_dir: Path, num_steps: int) -> Trainer:
    return Trainer(
        model=partial(CausalLM, config=GPT2),
        optimizer=partial(torch.optim.AdamW, lr=0.01),
        loop=TrainingLoop(max_steps=num_steps),
        checkpoint=Checkpointing(every_n_steps=3, keep_last=None),
        device="cpu",
        run_dir=run_dir,
    )


def test_a_resumed_run_equals_a_straight_run_bitwise(tmp_path: Path) -> None:
    data = Loader(TextWindows(b"the quick brown fox jumps over the lazy dog " * 8, 16), batch_size=4, shuffle=True)
    straight, cut = trainer(tmp_path / "straight", 8), trainer(tmp_path / "cut", 8)
    losses = straight.fit(data, data).metrics
    cut.fit(data, data, ckpt_path=tmp_path / "straight" / "checkpoints" / "step_00000003")
    assert tiny.is_bitwise_equal(tiny.weights(straight), tiny.weights(cut))
    assert losses["val/loss"] == cut.metrics["val/loss"] < 5.5


@pytest.mark.parametrize("config", [GPT2, LLAMA], ids=["gpt2", "llama"])
def test_caching_keys_and_values_does_not_change_the_generated_tokens(config: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = CausalLM(config=config).eval()
    assert model.caches
    tokens_BT, lengths = padded_prompts([[1, 2, 3, 4, 5], [200], [7, 8]])
    ask = Prompts(tokens_BT, lengths, 12, Sampling(), lambda tokens: tokens[-1] % 7 == 0)
    with torch.no_grad():
        with_cache = ask.answer(model)
        model.caches = False
        assert ask.answer(model) == with_cache


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "gtp2"}, "config.model_type='gtp2': expected a model type of transformers.* Did you mean gpt2"),
        ({"n_layer": 1}, "config.model_type"),
        ({**GPT2, "n_layers": 1}, "config.n_layers: gpt2 has no such setting. Did you mean n_layer"),
        (BERT, "expected a model whose predictions do not depend on later tokens; set config.is_decoder=true"),
    ],
)
def test_configurations_that_are_not_causal_language_models_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        CausalLM(config=config)


def test_a_directory_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"expected a directory written by save_pretrained, with a config\.json"):
        CausalLM(tmp_path)
    with pytest.raises(SettingError, match="or config instead of path, not both"):
        CausalLM()
