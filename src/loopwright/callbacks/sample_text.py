"""`SampleText`: logs text that a byte-level language model generates after each validation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch

from loopwright.errors import check_count, refuse, refuse_type
from loopwright.hooks import Callback

if TYPE_CHECKING:
    from torch import Tensor, nn

    from loopwright.loop import LoopCallback
    from loopwright.trainer import Trainer

_BYTES = 256
_UNPRINTABLE = "\N{REPLACEMENT CHARACTER}"


@runtime_checkable
class Writer(Protocol):
    """A language model that can generate text."""

    vocab_size: int

    def generate(self, tokens_BT: Tensor, num_tokens: int, temperature: float) -> Tensor:
        """Return ``tokens_BT`` (batch x T, int64) with ``num_tokens`` more tokens in each row."""
        ...


class SampleText(Callback):
    """Generates a text with the model at the end of each validation, and logs it as ``val/sample``.

    The sampled bytes depend only on the weights, the run's seed and the step. Generating the text does not affect
    training. Invalid UTF-8 and unprintable characters are replaced by U+FFFD, because unprintable characters could move
    a terminal's cursor.

    Args:
        prompt: beginning of the text, at least one character.
        num_tokens: number of bytes to generate.
        temperature: divisor of the logits. 1 samples from the model's probabilities. A lower value makes likely bytes
            more likely. 0 always chooses the most likely byte.

    Raises:
        SettingError: if an argument is invalid, or when a trainer is built whose model does not generate bytes.
    """

    def __init__(self, prompt: str = "The ", num_tokens: int = 200, temperature: float = 0.8) -> None:
        if not isinstance(prompt, str) or not prompt:
            raise refuse("prompt", prompt, "at least one character")
        if isinstance(temperature, bool) or not isinstance(temperature, int | float):
            raise refuse_type("temperature", temperature, "a finite number, 0 or more")
        if not 0 <= temperature < float("inf"):
            raise refuse("temperature", temperature, "a finite number, 0 or more")
        self._prompt = prompt
        self._num_tokens = check_count("num_tokens", num_tokens)
        self._temperature = float(temperature)

    def setup(self, trainer: Trainer) -> None:
        """Check that the model can generate bytes."""
        _writer(trainer.model)

    def on_validate_end(self, trainer: Trainer, model: nn.Module, loop: LoopCallback) -> None:
        """Generate and log a text.

        During this hook, the model is in evaluation mode, and torch's random generators have been seeded for the
        validation.
        """
        device = next(model.parameters()).device
        prompt_BT = torch.tensor([list(self._prompt.encode())], device=device)
        text = readable(_writer(model).generate(prompt_BT, self._num_tokens, self._temperature)[0].tolist())
        for logger in trainer.loggers:
            logger.log_text({f"{trainer.validation_name}/sample": text}, trainer.global_step)


def readable(tokens: list[int]) -> str:
    """Decode bytes as UTF-8, and replace invalid bytes and unprintable characters by U+FFFD. Newlines are kept."""
    text = bytes(tokens).decode("utf-8", errors="replace")
    return "".join(char if char.isprintable() or char == "\n" else _UNPRINTABLE for char in text)


def _writer(model: nn.Module) -> Writer:
    if not isinstance(model, Writer) or model.vocab_size != _BYTES:
        expected = f"a model with generate(tokens, num_tokens, temperature) and vocab_size={_BYTES}"
        raise refuse_type("model", type(model).__name__, expected, "remove the callback SampleText")
    return model
