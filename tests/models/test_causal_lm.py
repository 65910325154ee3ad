"""CausalLM: models of transformers as language models of ours; what is none is refused."""

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
    warnings.simplefilter("ignore")  # of a package that is not ours, while it is imported
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


def test_it_is_trained_saved_and_resumed_bitwise(tmp_path: Path) -> None:
    data = Loader(TextWindows(b"the quick brown fox jumps over the lazy dog " * 8, 16), batch_size=4, shuffle=True)
    straight, cut = trainer(tmp_path / "straight", 8), trainer(tmp_path / "cut", 8)
    losses = straight.fit(data, data).metrics
    cut.fit(data, data, ckpt_path=tmp_path / "straight" / "checkpoints" / "step_00000003")
    assert tiny.is_bitwise_equal(tiny.weights(straight), tiny.weights(cut))
    assert losses["val/loss"] == cut.metrics["val/loss"] < 5.5


@pytest.mark.parametrize("config", [GPT2, LLAMA], ids=["gpt2", "llama"])
def test_what_is_kept_changes_no_generated_token(config: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = CausalLM(config=config).eval()
    assert model.caches
    tokens_BT, lengths = padded_prompts([[1, 2, 3, 4, 5], [200], [7, 8]])
    ask = Prompts(tokens_BT, lengths, 12, Sampling(), lambda tokens: tokens[-1] % 7 == 0)
    with torch.no_grad():
        kept = ask.answer(model)
        model.caches = False
        assert ask.answer(model) == kept


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "gtp2"}, "config.model_type='gtp2': expected a model of transformers.* Did you mean gpt2"),
        ({"n_layer": 1}, "config.model_type"),
        ({**GPT2, "n_layers": 1}, "config.n_layers: gpt2 has no such setting. Did you mean n_layer"),
        (BERT, "expected a model whose predictions do not depend on later tokens; set config.is_decoder=true"),
    ],
)
def test_what_is_no_causal_language_model_is_refused(config: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        CausalLM(config=config)


def test_a_directory_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"expected a directory that save_pretrained wrote, with config\.json"):
        CausalLM(tmp_path)
    with pytest.raises(SettingError, match="or config in its place, and not both"):
        CausalLM()
