"""`SampleText`: lets a language model of bytes write a little after each validation."""

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
    """A language model as this callback needs it."""

    vocab_size: int

    def generate(self, tokens_BT: Tensor, num_tokens: int, temperature: float) -> Tensor:
        """Each row of tokens (batch x T, int64) continued by ``num_tokens``."""
        ...


class SampleText(Callback):
    """Hands the loggers a text that the model wrote, as ``val/sample``, when a validation has ended.

    What is drawn depends on the run's seed and the step alone and changes nothing in the training. Bytes that are no
    UTF-8, and characters that would move a terminal's cursor, are replaced.

    Args:
        prompt: what the model continues; at least one character.
        num_tokens: bytes that it writes.
        temperature: 1 draws by the model's probabilities, less prefers the likely; 0 takes the likeliest.

    Raises:
        SettingError: for an empty prompt, a count that is none, a negative temperature; when the trainer is built, for
            a model that does not write bytes.
    """

    def __init__(self, prompt: str = "The ", num_tokens: int = 200, temperature: float = 0.8) -> None:
        if not isinstance(prompt, str) or not prompt:
            raise refuse("prompt", prompt, "at least one character")
        if isinstance(temperature, bool) or not isinstance(temperature, int | float):
            raise refuse_type("temperature", temperature, "a number, 0 or more")
        if not 0 <= temperature < float("inf"):
            raise refuse("temperature", temperature, "a number, 0 or more")
        self._prompt = prompt
        self._num_tokens = check_count("num_tokens", num_tokens)
        self._temperature = float(temperature)

    def setup(self, trainer: Trainer) -> None:
        """See that the model can write."""
        _writer(trainer.model)

    def on_validate_end(self, trainer: Trainer, model: nn.Module, loop: LoopCallback) -> None:
        """Write, and tell the loggers; the model is in evaluation mode, and the streams are those of the validation."""
        device = next(model.parameters()).device
        prompt_BT = torch.tensor([list(self._prompt.encode())], device=device)
        text = readable(_writer(model).generate(prompt_BT, self._num_tokens, self._temperature)[0].tolist())
        for logger in trainer.loggers:
            logger.log_text({f"{trainer.validation_name}/sample": text}, trainer.global_step)


def readable(tokens: list[int]) -> str:
    """Bytes as a text that may be shown anywhere."""
    text = bytes(tokens).decode("utf-8", errors="replace")
    return "".join(char if char.isprintable() or char == "\n" else _UNPRINTABLE for char in text)


def _writer(model: nn.Module) -> Writer:
    if not isinstance(model, Writer) or model.vocab_size != _BYTES:
        expected = f"a model with generate(tokens, num_tokens, temperature) and vocab_size={_BYTES}, to sample text"
        raise refuse_type("model", type(model).__name__, expected, "leave out the callback SampleText")
    return model
