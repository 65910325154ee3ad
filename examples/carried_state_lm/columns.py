"""`text_columns`: batches of the text that comes with Python, cut into rows that are read in parallel."""

from typing import Any

import torch

from loopwright.data import Splits, stdlib_text


def text_columns(batch_size: int = 20, num_bytes: int = 64, max_bytes: int | None = None) -> Splits:
    """Cut the text into ``batch_size`` rows. A batch contains the next ``num_bytes`` bytes of every row.

    ``max_bytes`` limits the training text and the validation text to their first ``max_bytes`` bytes.
    """
    text = stdlib_text()
    return Splits(
        train=cut(text.train.dataset.text[:max_bytes], batch_size, num_bytes),
        val=cut(text.val.dataset.text[:max_bytes], batch_size, num_bytes),
        facts=text.facts,  # sizes and digests of the text, which the run records
        encoding=text.encoding,
    )


def cut(text: bytes, batch_size: int, num_bytes: int) -> list[dict[str, Any]]:
    """Return the batches of a text. Bytes at the end of the text that do not fill a batch are left out."""
    num_batches = (len(text) - 1) // (batch_size * num_bytes)
    length = num_batches * num_bytes
    tokens = torch.frombuffer(bytearray(text), dtype=torch.uint8).long()
    inputs = tokens[: batch_size * length].view(batch_size, length)
    targets = tokens[1 : 1 + batch_size * length].view(batch_size, length)
    return [
        {
            "inputs": inputs[:, start : start + num_bytes],
            "targets": targets[:, start : start + num_bytes],
            "is_first": start == 0,
        }
        for start in range(0, length, num_bytes)
    ]
