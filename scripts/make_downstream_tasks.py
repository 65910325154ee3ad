"""Writes the data of the shipped downstream tasks, ``conf/downstream/*.jsonl``.

    python scripts/make_downstream_tasks.py [DIRECTORY]

The tasks are made from the validation text of `stdlib_text`. This text comes with the Python that runs this script. In
the same version of Python, the training text of `stdlib_text` does not contain the text of the tasks. The choice of
words depends only on the text and the seed.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections import Counter
from pathlib import Path

from loopwright.data import stdlib_text
from loopwright.data.sets.text_windows import TextWindows

SEED = 0
NUM_DOCUMENTS = 200
CONTEXT_BYTES = 160  # length of the text before a word; the shipped model hardly uses a longer context
NUM_CHOICES = 4


def main() -> None:
    """Write the data of the tasks cloze and completion."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", nargs="?", type=Path, default=Path(__file__).parents[1] / "conf" / "downstream")
    directory = parser.parse_args().directory
    text = held_out_text()
    for name, make in (("cloze", cloze), ("completion", completion)):
        documents = make(text, random.Random(f"{SEED}/{name}"))
        lines = "".join(json.dumps(document, ensure_ascii=False) + "\n" for document in documents)
        (directory / f"{name}.jsonl").write_text(lines, encoding="utf-8")


def held_out_text() -> str:
    """Return the validation text of `stdlib_text`."""
    windows = stdlib_text().val.dataset
    assert isinstance(windows, TextWindows)
    return windows.text.decode()


def cloze(text: str, rng: random.Random) -> list[dict[str, object]]:
    """Return tasks to choose the next word of a text from four words.

    Each wrong word is at most one letter longer or shorter than the right word.
    """
    words = [word for word in _words(text, shortest=4) if word.start() > CONTEXT_BYTES]
    vocabulary = sorted(Counter(word[0] for word in words))
    documents = []
    for word in sorted(rng.sample(words, NUM_DOCUMENTS), key=re.Match.start):
        alike = [other for other in vocabulary if other != word[0] and abs(len(other) - len(word[0])) <= 1]
        choices = [word[0], *rng.sample(alike, NUM_CHOICES - 1)]
        rng.shuffle(choices)
        context = text[word.start() - CONTEXT_BYTES : word.start() - 1]
        documents.append({"context": context, "choices": choices, "answer": choices.index(word[0])})
    return documents


def completion(text: str, rng: random.Random) -> list[dict[str, object]]:
    """Return tasks to complete a word from its first three letters."""
    words = [word for word in _words(text, shortest=6) if word.start() > CONTEXT_BYTES]
    documents = []
    for word in sorted(rng.sample(words, NUM_DOCUMENTS), key=re.Match.start):
        context = text[word.start() - CONTEXT_BYTES : word.start() + 3]
        documents.append({"context": context, "answer": word[0][3:]})
    return documents


def _words(text: str, shortest: int) -> list[re.Match[str]]:
    """Return the words of ``shortest`` or more lower-case letters.

    The two characters before a word are a lower-case letter or a comma, and a space. The character after a word is a
    space, a newline or one of ``,.;:``.
    """
    return list(re.finditer(rf"(?<=[a-z,] )[a-z]{{{shortest},}}(?=[ ,.;:\n])", text))


if __name__ == "__main__":
    main()
