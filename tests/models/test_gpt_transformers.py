"""Tests that `GPT` and the GPT-2 of transformers compute the same loss and gradients from the same weights."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

from loopwright.models import GPT

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # importing transformers may raise warnings
    transformers = pytest.importorskip("transformers", reason="needs the extra: pip install 'loopwright[lm]'")

pytestmark = pytest.mark.extras

VOCAB_SIZE, CONTEXT_LENGTH, WIDTH, NUM_LAYERS, NUM_HEADS = 61, 17, 24, 3, 4

# Parameter names of `GPT` and the corresponding names in transformers, whose Conv1D stores transposed weights.
OUTER = {
    "token_embedding.weight": "transformer.wte.weight",
    "position_embedding.weight": "transformer.wpe.weight",
    "transformer.norm.weight": "transformer.ln_f.weight",
    "transformer.norm.bias": "transformer.ln_f.bias",
}
INNER = {
    "attention_norm": "ln_1",
    "attention.query_key_value": "attn.c_attn",
    "attention.output": "attn.c_proj",
    "feed_forward_norm": "ln_2",
    "feed_forward.0": "mlp.c_fc",
    "feed_forward.2": "mlp.c_proj",
}


def names() -> dict[str, str]:
    found = dict(OUTER)
    for layer in range(NUM_LAYERS):
        for ours, theirs in INNER.items():
            for kind in ("weight", "bias"):
                found[f"transformer.blocks.{layer}.{ours}.{kind}"] = f"transformer.h.{layer}.{theirs}.{kind}"
    return found


def as_theirs(name: str, tensor: Tensor) -> Tensor:
    is_linear = name.endswith("weight") and ("attention." in name or "feed_forward." in name)
    return tensor.T if is_linear else tensor


def models(attention: str) -> tuple[GPT, nn.Module]:
    ours = GPT(VOCAB_SIZE, CONTEXT_LENGTH, WIDTH, NUM_LAYERS, NUM_HEADS)
    config = transformers.GPT2Config(
        vocab_size=VOCAB_SIZE,
        n_positions=CONTEXT_LENGTH,
        n_embd=WIDTH,
        n_layer=NUM_LAYERS,
        n_head=NUM_HEADS,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        attn_implementation=attention,
    )
    theirs = transformers.GPT2LMHeadModel(config)
    generator = torch.Generator().manual_seed(1)
    state = theirs.state_dict()
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            # Larger than initial weights, so that each branch contributes noticeably to the residual stream.
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
            state[names()[name]].copy_(as_theirs(name, parameter))
    return ours, theirs


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("is_padded", [False, True], ids=["whole", "padded"])
def test_gpt_and_transformers_gpt2_have_the_same_loss_and_gradients(attention: str, is_padded: bool) -> None:
    ours, theirs = models(attention)
    tokens = torch.randint(VOCAB_SIZE, (5, CONTEXT_LENGTH + 1), generator=torch.Generator().manual_seed(2))
    if is_padded:
        tokens[0, 4:] = -100
        tokens[3, 11:] = -100
    outputs = ours({"tokens": tokens})
    # The loss is computed here because transformers would shift the labels. The last token of a row is only a target.
    logits = theirs(input_ids=tokens[:, :-1].clamp_min(0)).logits
    loss = nn.functional.cross_entropy(logits.flatten(end_dim=1), tokens[:, 1:].flatten())
    torch.testing.assert_close(outputs["loss"], loss, rtol=1e-5, atol=0)
    outputs["loss"].backward()
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    assert len(names()) == len(dict(ours.named_parameters())) == len(gradients)
    for name, parameter in ours.named_parameters():
        their_gradient = gradients[names()[name]]
        assert parameter.grad is not None and their_gradient is not None
        difference = as_theirs(name, parameter.grad) - their_gradient
        assert difference.norm() <= 1e-5 * their_gradient.norm(), name


def test_without_padding_the_loss_equals_the_loss_that_transformers_computes_from_labels() -> None:
    ours, theirs = models("sdpa")
    tokens = torch.randint(VOCAB_SIZE, (3, CONTEXT_LENGTH), generator=torch.Generator().manual_seed(3))
    loss = theirs(input_ids=tokens, labels=tokens).loss
    torch.testing.assert_close(ours({"tokens": tokens})["loss"], loss, rtol=1e-5, atol=0)
