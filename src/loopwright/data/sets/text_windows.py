"""`TextWindows`: the bytes of a text, cut into windows of equal length for a language model.

Shape suffixes: N windows, B batch, T bytes of a window, S = T + 1.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from loopwright.data.reading.rows import Rows
from loopwright.errors import check_count, refuse

# Placed before the first byte of the text, so that this byte also has an input to be predicted from.
_BEGINNING = b"\n"
_PADDING = -100  # torch's ignore_index


class TextWindows:
    """Windows that tile a text. Every byte is a target exactly once, so a mean over all windows is exact.

    A sample is a mapping with ``tokens``, int64, T + 1: the byte before the window (a newline for the first window),
    then the bytes of the window, each in [0, 256). The last window is padded with -100, torch's ``ignore_index``.

    Args:
        text: bytes of the text, at least one.
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
        # A view in which the first byte of each window is the last byte of the window before it.
        self._windows_NS = torch.from_numpy(padded).unfold(0, window_length + 1, window_length)

    @property
    def text(self) -> bytes:
        """The text that the windows tile."""
        return self._text

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self._windows_NS)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return one window."""
        return {"tokens": self._windows_NS[index].long()}

    def __getitems__(self, indices: list[int]) -> Rows:
        """Return the windows at ``indices`` as one batch: ``tokens``, B x (T + 1)."""
        return Rows({"tokens": self._windows_NS.index_select(0, torch.tensor(indices)).long()})
