"""`TextWindows`: a text as bytes, cut into windows of equal length for a language model.

Shape suffixes: N windows, B batch, T bytes of a window, S = T + 1.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from loopwright.data.reading.rows import Rows
from loopwright.errors import check_count, refuse

# What stands before the first byte, so that this too is predicted from something.
_BEGINNING = b"\n"
_PADDING = -100  # torch's ignore_index


class TextWindows:
    """Windows that tile a text: every byte is a target exactly once, so that a mean over all of them is exact.

    A sample is a mapping with ``tokens``, int64, T + 1: the byte before the window (a newline before the first), then
    the bytes of the window, each in [0, 256). The last window is filled up with -100, which stands for no byte.

    Args:
        text: at least one byte.
        window_length: T, bytes of a window.

    Raises:
        SettingError: for an empty text, and a count that is none.
    """

    is_random: ClassVar[bool] = False

    def __init__(self, text: bytes, window_length: int) -> None:
        window_length = check_count("window_length", window_length)
        if not text:
            raise refuse("text", text, "at least one byte")
        self._text = text
        num_windows = -(-len(text) // window_length)
        stream = np.full(1 + num_windows * window_length, _PADDING, dtype=np.int16)
        stream[: 1 + len(text)] = np.frombuffer(_BEGINNING + text, dtype=np.uint8)
        # A view in which each window shares its first byte with the one before.
        self._windows_NS = torch.from_numpy(stream).unfold(0, window_length + 1, window_length)

    @property
    def text(self) -> bytes:
        """The text that the windows tile."""
        return self._text

    def __len__(self) -> int:
        """Windows."""
        return len(self._windows_NS)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """One window."""
        return {"tokens": self._windows_NS[index].long()}

    def __getitems__(self, indices: list[int]) -> Rows:
        """The windows at ``indices`` as one batch: ``tokens``, B x (T + 1)."""
        return Rows({"tokens": self._windows_NS.index_select(0, torch.tensor(indices)).long()})
