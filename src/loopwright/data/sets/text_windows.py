"""`TextWindows`, a data set for language models: the bytes of a text in windows of equal length.

Shape suffixes: N windows, B windows in a batch, T bytes in a window, S = T + 1.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from loopwright.data.reading.rows import Rows
from loopwright.errors import check_count, refuse

# Byte before the first byte of the text. It is the input from which a model predicts the first byte.
_BEGINNING = b"\n"
_PADDING = -100  # default ``ignore_index`` of torch's cross entropy


class TextWindows:
    """Windows that cover a text without overlap, so that every byte of the text is a target exactly once.

    The mean loss over the targets of all windows is therefore the exact mean loss over the bytes of the text.

    A sample is a dict with one entry, ``tokens``, an int64 tensor of shape (T + 1,). The tensor contains the byte
    before the window (a newline for the first window), then the bytes of the window, each in [0, 256). The last window
    is padded with -100, the default ``ignore_index`` of torch's cross entropy.

    Args:
        text: bytes of the text; at least one byte.
        window_length: T, the number of bytes in a window.

    Raises:
        SettingError: for an empty text, and for an invalid window length.
    """

    is_random: ClassVar[bool] = False

    def __init__(self, text: bytes, window_length: int) -> None:
        window_length = check_count("window_length", window_length)
        if not text:
            raise refuse("text", text, "at least one byte")
        self._text = text
        num_windows = -(-len(text) // window_length)
        padded = np.full(1 + num_windows * window_length, _PADDING, dtype=np.int16)
        padded[: 1 + len(text)] = np.frombuffer(_BEGINNING + text, dtype=np.uint8)
        # In this view, the first byte of each window is the last byte of the previous window.
        self._windows_NS = torch.from_numpy(padded).unfold(0, window_length + 1, window_length)

    @property
    def text(self) -> bytes:
        """The bytes of the text."""
        return self._text

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self._windows_NS)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return one window."""
        return {"tokens": self._windows_NS[index].long()}

    def __getitems__(self, indices: list[int]) -> Rows:
        """Return the windows at ``indices`` as one batch: ``tokens``, int64, of shape (B, T + 1)."""
        return Rows({"tokens": self._windows_NS.index_select(0, torch.tensor(indices)).long()})
