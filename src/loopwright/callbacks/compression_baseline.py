"""`CompressionBaseline`: what general compressors make of the text that a model is validated on."""

from __future__ import annotations

import gzip
import lzma
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from loopwright.errors import SettingError
from loopwright.hooks import Callback

if TYPE_CHECKING:
    from torch import nn

    from loopwright.loop import LoopCallback
    from loopwright.trainer import Trainer


@runtime_checkable
class HasText(Protocol):
    """A data set of a text."""

    @property
    def text(self) -> bytes:
        """The whole of it."""
        ...


class CompressionBaseline(Callback):
    """Logs beside the results of a validation how well compressors do on the same text, in bits per byte.

    ``val/gzip_9/bits_per_byte`` and ``val/xz_9e/bits_per_byte`` compress the validation text by itself;
    ``val/xz_9e_after_train/bits_per_byte`` is what it adds to the compressed training text, which xz has then seen as a
    model has. Compressed once, then logged each time, so that they stand beside ``val/bits_per_byte``; xz takes about
    a second for a megabyte.

    Raises:
        SettingError: in a fit or validation, for a data set without ``text``.
    """

    def __init__(self) -> None:
        self._train_text: bytes | None = None
        self._found: dict[str | None, dict[str, float]] = {}

    def on_fit_start(self, trainer: Trainer, train_dataloader: Any, val_dataloader: Any, loop: LoopCallback) -> None:
        """Take the training text."""
        self._train_text = _text_of(train_dataloader)
        self._found.clear()

    def on_validate_start(self, trainer: Trainer, model: nn.Module, val_dataloader: Any, loop: LoopCallback) -> None:
        """Compress the validation text, if that is not done yet."""
        name = trainer.validation_name
        if name not in self._found:
            self._found[name] = compressed_bits_per_byte(_text_of(val_dataloader), self._train_text)

    def on_validate_end(self, trainer: Trainer, model: nn.Module, loop: LoopCallback) -> None:
        """Log what was found."""
        name = trainer.validation_name
        found = self._found[name].items()
        trainer.log_metrics(**{f"{name}/{compressor}/bits_per_byte": bits for compressor, bits in found})


def compressed_bits_per_byte(text: bytes, train_text: bytes | None = None) -> dict[str, float]:
    """Bits that each compressor needs for a byte of ``text``, headers included.

    Args:
        text: at least one byte.
        train_text: what xz is to have seen before; None: that entry is left out.
    """
    sizes = {"gzip_9": len(gzip.compress(text, compresslevel=9)), "xz_9e": _xz_size(text)}
    if train_text is not None:
        sizes["xz_9e_after_train"] = _xz_size(train_text + text) - _xz_size(train_text)
    return {name: 8 * size / len(text) for name, size in sizes.items()}


def _xz_size(text: bytes) -> int:
    return len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME))


def _text_of(dataloader: Any) -> bytes:
    dataset = getattr(dataloader, "dataset", None)
    if not isinstance(dataset, HasText):
        problem = f"={type(dataset).__name__}: expected a data set with a text, to compress"
        raise SettingError("dataset", f"{problem}; leave out the callback CompressionBaseline.")
    return dataset.text
