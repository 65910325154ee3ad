"""`CompressionBaseline`: logs the size of the validation text after compression by gzip and xz, in bits per byte."""

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
    """A data set with the attribute ``text``, which is of type bytes."""

    @property
    def text(self) -> bytes:
        """All bytes of the text."""
        ...


class CompressionBaseline(Callback):
    """Logs the compressed size of the validation text after each validation, in bits per uncompressed byte.

    - ``val/gzip_9/bits_per_byte`` and ``val/xz_9e/bits_per_byte``: the validation text compressed alone.
    - ``val/xz_9e_after_train/bits_per_byte``: increase of the compressed size when the validation text is appended to
      the training text. A trained model has also read the training text, so compare the model with this value.

    The text is compressed once in a fit. The sizes are logged after each validation, like ``val/bits_per_byte``. xz
    takes about one second per megabyte. If several processes train together, process 0 compresses the text.

    Raises:
        SettingError: when a fit or a validation starts, if the data set of its dataloader has no attribute ``text`` of
            type bytes.
    """

    def __init__(self) -> None:
        self._train_text: bytes | None = None
        self._results: dict[str | None, dict[str, float]] = {}

    def logs(self, metric: str) -> bool:
        """Return whether ``metric`` is a compressed size."""
        return metric.startswith("val/") and metric.endswith("/bits_per_byte")

    def on_fit_start(self, trainer: Trainer, train_dataloader: Any, val_dataloader: Any, loop: LoopCallback) -> None:
        """Store the training text."""
        self._train_text = _text_of(train_dataloader)
        self._results.clear()

    def on_validate_start(self, trainer: Trainer, model: nn.Module, val_dataloader: Any, loop: LoopCallback) -> None:
        """Compress the text of this validation set, unless the text was already compressed in this fit."""
        name = trainer.validation_name
        if name not in self._results:
            text = _text_of(val_dataloader)
            self._results[name] = {} if trainer.rank else compressed_bits_per_byte(text, self._train_text)

    def on_validate_end(self, trainer: Trainer, model: nn.Module, loop: LoopCallback) -> None:
        """Log the compressed sizes."""
        name = trainer.validation_name
        results = self._results[name].items()
        trainer.log_metrics(**{f"{name}/{compressor}/bits_per_byte": bits for compressor, bits in results})


def compressed_bits_per_byte(text: bytes, train_text: bytes | None = None) -> dict[str, float]:
    """Return the compressed size of ``text`` for each compressor, in bits per byte of ``text``. Headers are included.

    Args:
        text: text to compress, at least one byte.
        train_text: text that is prepended to ``text`` before the compression by xz, for the entry
            ``xz_9e_after_train``; None omits this entry.
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
        problem = f"={type(dataset).__name__}: expected a data set with an attribute `text` of type bytes"
        remedy = "choose data=stdlib_text, or remove the callback CompressionBaseline"
        raise SettingError("dataset", f"{problem}; {remedy}.")
    return dataset.text
