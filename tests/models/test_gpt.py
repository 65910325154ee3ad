"""Tests of `GPT`: outputs, causality, generation, and errors for invalid settings and data."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import tiny
from loopwright import Checkpointing, TrainingLoop
from loopwright.models import GPT
from loopwright.models.transformer import rotary_angles, rotate

KINDS: dict[str, dict[str, Any]] = {
    "learned": {},
    "rotary": {"positions": "rotary"},
    "untied": {"ties_weights": False},
}


def gpt(**settings: Any) -> GPT:
    torch.manual_seed(0)
    return GPT(**{"vocab_size": 11, "context_length": 8, "width": 8, "num_layers": 2, "num_heads": 2, **settings})


def rows_of_tokens(num_rows: int = 3, length: int = 9, vocab_size: int = 11) -> Tensor:
    return torch.randint(vocab_size, (num_rows, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_the_mean_over_every_token_but_the_first(kind: str) -> None:
    tokens = rows_of_tokens()
    outputs = gpt(**KINDS[kind])({"tokens": tokens})
    assert set(outputs) == {"loss", "num_items", "logits", "targets"}
    assert outputs["logits"].shape == (3, 8, 11)
    assert outputs["num_items"] == 24
    expected = functional.cross_entropy(outputs["logits"].flatten(end_dim=1), tokens[:, 1:].flatten())
    torch.testing.assert_close(outputs["loss"], expected)
    assert abs(outputs["loss"].item() - math.log(11)) < 0.5  # an untrained model predicts all tokens about equally


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_is_trained(kind: str) -> None:
    model = gpt(**KINDS[kind])
    model({"tokens": rows_of_tokens(20)})["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_a_prediction_depends_on_earlier_tokens_and_their_order_but_not_on_later_tokens(kind: str) -> None:
    model, tokens = gpt(**KINDS[kind]), rows_of_tokens(1, 8)
    changed = tokens.clone()
    changed[0, 5:] = (changed[0, 5:] + 1) % 11
    torch.testing.assert_close(model.logits(changed)[0, :5], model.logits(tokens)[0, :5])
    swapped = torch.tensor([[1, 2, 3]]), torch.tensor([[2, 1, 3]])
    first, second = (model.logits(each)[0, -1] for each in swapped)
    assert (first - second).abs().max() > 1e-6


def test_rotary_attention_depends_only_on_distances() -> None:
    model = gpt(positions="rotary", num_layers=1)
    repeated = torch.full((1, 8), 3)
    logits = model.logits(repeated)[0]
    # If all tokens are equal, every position attends to the same values.
    torch.testing.assert_close(logits, logits[:1].expand_as(logits))
    query, key = torch.randn(2, 1, 1, 4, generator=torch.Generator().manual_seed(0)).unbind()
    torch.testing.assert_close(score(query, key, 2, 0), score(query, key, 7, 5))
    assert (score(query, key, 2, 0) - score(query, key, 3, 0)).abs() > 1e-3


def score(query: Tensor, key: Tensor, query_position: int, key_position: int) -> Tensor:
    cos, sin = rotary_angles(8, 4)
    rotated = [
        rotate(x, (cos[[position]], sin[[position]])) for x, position in ((query, query_position), (key, key_position))
    ]
    return (rotated[0] * rotated[1]).sum()


def test_padding_does_not_change_the_loss_of_the_other_tokens() -> None:
    model = gpt()
    tokens = rows_of_tokens(2)
    padded = tokens.clone()
    padded[1, 4:] = -100
    outputs = model({"tokens": padded})
    whole, part = model({"tokens": tokens[:1]}), model({"tokens": tokens[1:, :4]})
    assert outputs["num_items"] == 8 + 3
    expected = (8 * whole["loss"] + 3 * part["loss"]) / 11
    torch.testing.assert_close(outputs["loss"], expected)


def test_a_batch_of_padding_alone_has_a_loss_of_0_and_0_items() -> None:
    outputs = gpt()({"tokens": torch.full((2, 5), -100)})
    assert (outputs["loss"], outputs["num_items"]) == (0, 0)


def test_with_a_vocabulary_of_256_bits_per_byte_is_returned() -> None:
    outputs = gpt(vocab_size=256)({"tokens": rows_of_tokens(vocab_size=256)})
    torch.testing.assert_close(outputs["bits_per_byte"], outputs["loss"].detach() / math.log(2))
    assert not outputs["bits_per_byte"].requires_grad


def test_accumulating_micro_batches_of_padded_rows_equals_one_batch_up_to_rounding() -> None:
    tokens = rows_of_tokens(8)
    for row in range(8):
        tokens[row, 2 + row :] = -100
    trained = []
    for size, accumulated in ((8, 1), (2, 4)):
        batches = [{"tokens": part} for part in tokens.split(size)]
        loop = TrainingLoop(num_steps=3, grad_accum_steps=accumulated, eval_frequency=None)
        trainer = tiny.trainer(loop, model=lambda: gpt().double())
        trainer.fit(batches)
        trained.append(tiny.weights(trainer))
    assert tiny.largest_difference(*trained) < 1e-10


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_equals_a_straight_run_and_rotary_buffers_are_not_saved(kind: str, tmp_path: Any) -> None:
    batches = [{"tokens": rows_of_tokens()}]

    def trainer(run_dir: Any) -> Any:
        loop = TrainingLoop(max_steps=4, eval_frequency=None)
        return tiny.trainer(
            loop, model=lambda: gpt(dropout=0.1, **KINDS[kind]), checkpoint=Checkpointing(2), run_dir=run_dir
        )

    straight = trainer(tmp_path / "a")
    straight.fit(batches)
    resumed = trainer(tmp_path / "b")
    resumed.fit(batches, ckpt_path=tmp_path / "a/checkpoints/step_00000002")
    assert tiny.is_bitwise_equal(tiny.weights(straight), tiny.weights(resumed))
    assert not any(name.startswith(("cos", "sin")) for name in tiny.weights(straight))


def test_the_last_layer_of_a_branch_is_initialised_smaller_in_deeper_models() -> None:
    model, std = gpt(width=64, num_layers=8, num_heads=4), math.sqrt(2 / (5 * 64))
    for block in model.transformer.blocks:
        for last in (block.attention.output, block.feed_forward[2]):
            assert last.weight.std().item() == pytest.approx(std / 4, rel=0.05)
            assert not last.bias.any()
        assert block.feed_forward[0].weight.std().item() == pytest.approx(std, rel=0.05)


def test_generation_continues_beyond_the_context_length() -> None:
    model = gpt().eval()
    prompt = rows_of_tokens(2, 3)
    greedy = model.generate(prompt, 10, temperature=0)
    assert greedy.shape == (2, 13)
    assert torch.equal(greedy[:, :3], prompt)
    assert torch.equal(greedy[:, 3], model.logits(prompt)[:, -1].argmax(dim=-1))
    assert torch.equal(greedy[:, -1], model.logits(greedy[:, -9:-1])[:, -1].argmax(dim=-1))
    torch.manual_seed(0)
    sampled = model.generate(prompt, 10)
    assert not torch.equal(sampled, greedy)
    assert not sampled.requires_grad


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"num_heads": 3}, "num_heads=3: expected a divisor of width=8."),
        ({"num_layers": 0}, "num_layers=0: expected a whole number, 1 or more."),
        (
            {"width": 6, "positions": "rotary"},
            "num_heads=2: expected an even quotient width / num_heads with positions=rotary, found 3.",
        ),
        ({"positions": "rotery"}, "positions='rotery': expected learned or rotary. Did you mean rotary?"),
        ({"vocab_size": True}, "vocab_size=True: expected a whole number, 1 or more."),
        ({"dropout": 1}, "dropout=1: expected a fraction in [0, 1)."),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        gpt(**settings)
    assert str(caught.value) == line


@pytest.mark.parametrize(
    ("tokens", "line"),
    [
        (
            rows_of_tokens(1, 10),
            "context_length=8: expected at least 9, the number of input tokens in a row of the data; "
            "set model.context_length=9.",
        ),
        (
            rows_of_tokens(1, 1),
            "model: expected tokens of shape batch x (2 or more), the data has tokens of shape (1, 1).",
        ),
        (
            torch.tensor([[3, 11, 2]]),
            "vocab_size=11: expected tokens in [0, 11), or -100 for padding, the data has tokens from 2 to 11.",
        ),
        (
            torch.tensor([[3, 2, 99]]),
            "vocab_size=11: expected tokens in [0, 11), or -100 for padding, the data has tokens from 2 to 99.",
        ),
        (
            torch.tensor([[-5, 2, 3]]),
            "vocab_size=11: expected tokens in [0, 11), or -100 for padding, the data has tokens from -5 to 3.",
        ),
    ],
)
def test_tokens_that_do_not_fit_the_settings_are_refused(tokens: Tensor, line: str) -> None:
    with pytest.raises(ValueError, match=r"the (data|model)") as caught:
        gpt()({"tokens": tokens})
    assert str(caught.value) == line
