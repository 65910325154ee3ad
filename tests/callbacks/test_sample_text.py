"""Text samples: written at each validation, changing nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch

import tiny
from loopwright import Logger, Trainer, TrainingLoop
from loopwright.callbacks import SampleText
from loopwright.callbacks.sample_text import readable
from loopwright.data import Loader, TextWindows
from loopwright.hooks import HOOKS, implements
from loopwright.models import GPT


class Texts(Logger):
    def __init__(self) -> None:
        self.seen: list[tuple[int, dict[str, str]]] = []

    def log_text(self, texts: Mapping[str, str], step: int) -> None:
        self.seen.append((step, dict(texts)))


def gpt(vocab_size: int = 256) -> GPT:
    return GPT(vocab_size=vocab_size, context_length=8, width=8, num_layers=1, num_heads=2, dropout=0.2)


def fitted(callbacks: list[Any], eval_frequency: int | None = 2) -> tuple[Trainer, Texts]:
    logger, data = Texts(), Loader(TextWindows(bytes(range(64)), 8), batch_size=4)
    loop = TrainingLoop(num_steps=4, eval_frequency=eval_frequency)
    trainer = tiny.trainer(loop, model=gpt, callbacks=callbacks, loggers=[logger])
    trainer.fit(data, data)
    return trainer, logger


def test_a_text_is_written_at_each_validation() -> None:
    _, logger = fitted([SampleText(prompt="ab", num_tokens=5)])
    assert [(step, list(texts)) for step, texts in logger.seen] == [(2, ["val/sample"]), (4, ["val/sample"])]
    assert all(texts["val/sample"].startswith("ab") for _, texts in logger.seen)
    assert fitted([SampleText(prompt="ab", num_tokens=5)])[1].seen == logger.seen


def test_it_changes_nothing_in_the_training() -> None:
    with_text, _ = fitted([SampleText(num_tokens=3)], eval_frequency=1)
    without, _ = fitted([], eval_frequency=None)
    assert tiny.is_bitwise_equal(tiny.weights(with_text), tiny.weights(without))


class Echo(torch.nn.Module):
    """Writes by a rule, and is no `GPT`."""

    vocab_size = 256

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return self.weight.square().sum()

    def generate(self, tokens_BT: torch.Tensor, num_tokens: int, temperature: float) -> torch.Tensor:
        assert not self.training
        return torch.cat((tokens_BT, tokens_BT[:, -1:].expand(-1, num_tokens) + int(temperature)), dim=1)


def test_any_model_that_writes_will_do() -> None:
    logger, data = Texts(), Loader(TextWindows(b"abcd", 2))
    callbacks = [SampleText(prompt="é", num_tokens=2, temperature=0)]
    trainer = tiny.trainer(model=Echo, callbacks=callbacks, loggers=[logger])
    trainer.validate(data)
    assert logger.seen == [(0, {"val/sample": "é��"})]


@pytest.mark.parametrize("model", [tiny.Regression, lambda: gpt(vocab_size=300)])
def test_a_model_that_does_not_write_bytes_is_refused_at_once(model: Any) -> None:
    with pytest.raises(ValueError, match=r"expected a model with generate.* and vocab_size=256"):
        tiny.trainer(model=model, callbacks=[SampleText()])


def test_nothing_that_moves_a_cursor_is_shown() -> None:
    assert readable(list(b"a\x1b[2J\r\nb\x00\xff\xc3\xa9")) == "a�[2J�\nb��é"


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"prompt": ""}, "prompt='': expected at least one character."),
        ({"num_tokens": 0}, "num_tokens=0: expected a whole number, 1 or more."),
        ({"temperature": -1}, "temperature=-1: expected a number, 0 or more."),
        ({"temperature": "hot"}, "temperature='hot': expected a number, 0 or more."),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        SampleText(**settings)
    assert str(caught.value) == line


def test_it_listens_to_two_hooks() -> None:
    assert [hook for hook in HOOKS if implements(SampleText(), hook)] == ["setup", "on_validate_end"]
