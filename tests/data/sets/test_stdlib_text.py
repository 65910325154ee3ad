"""`stdlib_text`: the text is split by topic or file, and its hash is recorded."""

from __future__ import annotations

import hashlib
import sys
import sysconfig
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pytest

from loopwright.data import Splits, TextWindows, stdlib_text


def texts(splits: Splits) -> tuple[bytes, bytes]:
    train, val = splits.train.dataset, splits.val.dataset
    assert isinstance(train, TextWindows) and isinstance(val, TextWindows)
    return train.text, val.text


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Replace Python's library by a small one, and return its folder."""
    for number in range(21):
        folder = tmp_path / ("package" if number % 2 else ".")
        folder.mkdir(exist_ok=True)
        (folder / f"part_{number:02}.py").write_bytes(b"# %02d\n" % number)
    for left_out in ("site-packages", "test", "package/tests", "package/__pycache__"):
        (tmp_path / left_out).mkdir()
        (tmp_path / left_out / "other.py").write_bytes(b"not the library\n")
    (tmp_path / "data.txt").write_bytes(b"no source\n")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    return tmp_path


def test_every_tenth_topic_is_held_out() -> None:
    train, val = texts(stdlib_text())
    names = sorted(topics)
    assert val == "".join(topics[name] for name in names[::10]).encode()
    assert train == "".join(topics[name] for i, name in enumerate(names) if i % 10).encode()
    assert len(train) + len(val) > 300_000


def test_a_batch_has_tokens_for_a_language_model() -> None:
    splits = stdlib_text(batch_size=3, window_length=16)
    tokens = next(iter(splits.train))["tokens"]
    assert tokens.shape == (3, 17)
    assert not next(iter(splits.train))["tokens"].equal(splits.train.dataset.__getitems__([0, 1, 2]).batch["tokens"])
    assert bytes(next(iter(splits.val))["tokens"][0, 1:].tolist()) == texts(splits)[1][:16]


def test_the_library_is_split_by_file_in_name_order(library: Path) -> None:
    train, val = texts(stdlib_text(corpus="library"))
    names = [f"package/part_{i:02}.py" for i in range(1, 21, 2)] + [f"part_{i:02}.py" for i in range(0, 21, 2)]
    contents = [(library / name).read_bytes() for name in names]
    assert val == b"".join(contents[::10])
    assert train == b"".join(text for i, text in enumerate(contents) if i % 10)


def test_size_and_hash_of_the_text_are_recorded() -> None:
    splits = stdlib_text()
    train, val = texts(splits)
    assert splits.facts == {
        "train_bytes": len(train),
        "train_sha256": hashlib.sha256(train).hexdigest(),
        "val_bytes": len(val),
        "val_sha256": hashlib.sha256(val).hexdigest(),
    }


def test_a_python_without_library_sources_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(ValueError, match="expected") as caught:
        stdlib_text(corpus="library")
    assert str(caught.value) == (
        f"corpus='library': expected the source files of the standard library in {tmp_path}; "
        "this distribution of Python lacks them; use corpus=topics, or another distribution."
    )


def test_a_python_without_topics_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(ValueError, match="expected") as caught:
        stdlib_text()
    assert str(caught.value) == (
        "corpus='topics': expected the module pydoc_data.topics; "
        "this distribution of Python lacks it; use corpus=library, or another distribution."
    )


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"corpus": "libary"}, "corpus='libary': expected topics or library. Did you mean library?"),
        ({"window_length": 0}, "window_length=0: expected a whole number, 1 or more."),
        ({"batch_size": 0}, "batch_size=0: expected a whole number, 1 or more."),
    ],
)
def test_invalid_settings_are_refused(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        stdlib_text(**settings)
    assert str(caught.value) == line
