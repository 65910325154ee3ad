"""`stdlib_text`: reads text that comes with Python as a data set of bytes."""

from __future__ import annotations

import hashlib
import importlib
import os
import sysconfig
from pathlib import Path
from typing import Literal

from loopwright.data.reading.loader import Loader
from loopwright.data.sets.splits import Splits
from loopwright.data.sets.text_windows import TextWindows
from loopwright.errors import nearest, refuse

CORPORA = ("topics", "library")

# Every tenth topic or file in name order is held out, beginning with the first. Reported bits per byte refer to this
# split: do not change the split.
_VALIDATION_EVERY_PARTS = 10
# Folders of the standard library that are not read: third-party packages, tests and compiled files.
_LEFT_OUT = frozenset({"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"})


def stdlib_text(
    batch_size: int = 32,
    num_workers: int = 0,
    window_length: int = 256,
    corpus: Literal["topics", "library"] = "topics",
) -> Splits:
    """Read text that comes with Python: its documentation topics, or the source code of its standard library.

    The text comes from the Python that runs this process, and differs between Python versions. A run records the size
    and SHA-256 of the text. Every tenth part (topic or file) in name order is validation data, beginning with the first
    part. The other parts are training data. The parts of each split are joined in name order. A batch is a dict with
    one entry, ``tokens``, an int64 tensor of shape (batch, window_length + 1), as described in `TextWindows`. Each byte
    of a split is a target once in a pass.

    Args:
        batch_size: number of windows in a micro-batch, and in a validation batch.
        num_workers: number of dataloader worker processes; 0: the main process reads.
        window_length: number of bytes in a window; each byte is a target.
        corpus: "topics": the documentation topics that ``help("topics")`` lists, about 450 kB; "library": the source
            files of the standard library without its tests, about 12 MB.

    Raises:
        SettingError: for an invalid batch size, number of workers or window length; for an unknown corpus; for a corpus
            that this distribution of Python lacks.
    """
    if corpus not in CORPORA:
        near = nearest(str(corpus), CORPORA)
        raise refuse("corpus", corpus, " or ".join(CORPORA), f"Did you mean {near}?" if near else "")
    parts = _topics() if corpus == "topics" else _library(Path(sysconfig.get_path("stdlib")))
    texts = [parts[name] for name in sorted(parts)]
    train = b"".join(text for i, text in enumerate(texts) if i % _VALIDATION_EVERY_PARTS)
    val = b"".join(texts[::_VALIDATION_EVERY_PARTS])
    return Splits(
        train=Loader(TextWindows(train, window_length), batch_size=batch_size, shuffle=True, num_workers=num_workers),
        val=Loader(TextWindows(val, window_length), batch_size=batch_size, num_workers=num_workers),
        facts={
            "train_bytes": len(train),
            "train_sha256": hashlib.sha256(train).hexdigest(),
            "val_bytes": len(val),
            "val_sha256": hashlib.sha256(val).hexdigest(),
        },
        encoding={"data": "stdlib_text", "tokens": {"vocabulary": "bytes", "vocab_size": 256, "padding": -100}},
    )


def _topics() -> dict[str, bytes]:
    try:
        # This module contains half a megabyte of text, so it is imported only when it is needed.
        module = importlib.import_module("pydoc_data.topics")
    except ImportError:
        remedy = "this distribution of Python lacks it; use corpus=library, or another distribution"
        raise refuse("corpus", "topics", "the module pydoc_data.topics", remedy) from None
    return {str(name): str(text).encode() for name, text in module.topics.items()}


def _library(folder: Path) -> dict[str, bytes]:
    parts = {}
    for here, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in _LEFT_OUT]  # `os.walk` visits the folders that remain.
        for path in (Path(here, name) for name in files if name.endswith(".py")):
            parts[path.relative_to(folder).as_posix()] = path.read_bytes()
    if sum(map(bool, parts.values())) <= _VALIDATION_EVERY_PARTS:
        remedy = "this distribution of Python lacks them; use corpus=topics, or another distribution"
        raise refuse("corpus", "library", f"the source files of the standard library in {folder}", remedy)
    return parts
