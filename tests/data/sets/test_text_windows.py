"""`TextWindows`: every byte of the text is predicted once, from the bytes before it in its window."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from loopwright.data import Loader, TextWindows


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])  # slow on a busy machine
@given(text=st.binary(min_size=1, max_size=60), window_length=st.integers(1, 70), batch_size=st.integers(1, 9))
def test_every_byte_is_a_target_once_and_its_input_is_the_byte_before(
    text: bytes, window_length: int, batch_size: int
) -> None:
    data = TextWindows(text, window_length)
    batches = list(Loader(data, batch_size=batch_size))
    tokens = torch.cat([batch["tokens"] for batch in batches])
    assert (tokens.dtype, tokens.shape) == (torch.int64, (len(data), window_length + 1))
    targets, inputs = tokens[:, 1:].flatten(), tokens[:, :-1].flatten()
    assert bytes(targets[targets >= 0].tolist()) == text
    assert bytes(inputs[inputs >= 0].tolist())[: len(text)] == (b"\n" + text)[: len(text)]
    assert (targets < 0).sum() < window_length
    assert set(targets[targets < 0].tolist()) <= {-100}
    assert data.text == text


def test_a_sample_is_a_row_of_a_batch() -> None:
    data = TextWindows(b"abcdefg", 3)
    assert data[0]["tokens"].tolist() == [10, 97, 98, 99]
    assert data[1]["tokens"].tolist() == [99, 100, 101, 102]
    assert data[2]["tokens"].tolist() == [102, 103, -100, -100]
    assert torch.equal(data.__getitems__([2, 0]).batch["tokens"], torch.stack([data[2]["tokens"], data[0]["tokens"]]))
    assert not data.is_random


@pytest.mark.parametrize("num_workers", [0, 1])
def test_our_loader_and_torchs_read_the_same_windows(num_workers: int) -> None:
    data = TextWindows(bytes(range(40)), 4)
    ours = torch.cat([batch["tokens"] for batch in Loader(data, batch_size=3, num_workers=num_workers)])
    theirs = torch.cat([batch["tokens"] for batch in DataLoader(data, batch_size=3)])
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("text", "window_length", "line"),
    [
        (b"", 4, "text=b'': expected at least one byte."),
        (b"abc", 0, "window_length=0: expected a whole number, 1 or more."),
    ],
)
def test_invalid_settings_are_refused(text: bytes, window_length: int, line: str) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        TextWindows(text, window_length)
    assert str(caught.value) == line
