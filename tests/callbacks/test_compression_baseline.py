"""Tests of `CompressionBaseline`."""

from __future__ import annotations

import gzip
import lzma
from pydoc_data.topics import topics

import pytest

import tiny
from loopwright import TrainingLoop
from loopwright.callbacks import CompressionBaseline
from loopwright.callbacks.compression_baseline import compressed_bits_per_byte
from loopwright.data import Loader, TextWindows
from loopwright.models import GPT

TRAIN = topics["assert"].encode()
VAL = topics["assert"][:300].encode() + topics["pass"].encode()
XZ = {"preset": 9 | lzma.PRESET_EXTREME}


def loader(text: bytes) -> Loader:
    return Loader(TextWindows(text, 64), batch_size=8)


def gpt() -> GPT:
    return GPT(context_length=64, width=8, num_layers=1, num_heads=1)


def test_the_values_equal_direct_calls_of_gzip_and_lzma() -> None:
    results = compressed_bits_per_byte(VAL, TRAIN)
    assert results == {
        "gzip_9": 8 * len(gzip.compress(VAL, 9)) / len(VAL),
        "xz_9e": 8 * len(lzma.compress(VAL, **XZ)) / len(VAL),
        "xz_9e_after_train": 8 * (len(lzma.compress(TRAIN + VAL, **XZ)) - len(lzma.compress(TRAIN, **XZ))) / len(VAL),
    }
    assert results["xz_9e_after_train"] < results["xz_9e"] / 2
    assert set(compressed_bits_per_byte(VAL)) == {"gzip_9", "xz_9e"}


def test_the_values_are_logged_with_the_metrics_of_a_fit() -> None:
    loop = TrainingLoop(num_steps=2, eval_frequency=1)
    trainer = tiny.trainer(loop, model=gpt, callbacks=[CompressionBaseline()])
    metrics = trainer.fit(loader(TRAIN), loader(VAL)).metrics
    assert {name: metrics[f"val/{name}/bits_per_byte"] for name in ("gzip_9", "xz_9e", "xz_9e_after_train")} == (
        compressed_bits_per_byte(VAL, TRAIN)
    )
    assert metrics["val/bits_per_byte"] > 0


def test_each_validation_set_has_its_own_values() -> None:
    trainer = tiny.trainer(model=gpt, callbacks=[CompressionBaseline()])
    metrics = trainer.validate({"a": loader(TRAIN), "b": loader(VAL)})
    assert metrics["val/a/gzip_9/bits_per_byte"] == compressed_bits_per_byte(TRAIN)["gzip_9"]
    assert metrics["val/b/xz_9e/bits_per_byte"] == compressed_bits_per_byte(VAL)["xz_9e"]
    assert not any("after_train" in name for name in metrics)


def test_a_data_set_without_a_text_is_refused() -> None:
    trainer = tiny.trainer(callbacks=[CompressionBaseline()])
    expected = r"^dataset=TensorDataset: expected a data set with an attribute `text` of type bytes; choose data="
    with pytest.raises(ValueError, match=expected):
        trainer.fit(Loader(tiny.rows()))
