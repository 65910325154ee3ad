"""Finds idioms that are hard to read for a foreign reader, and prints a plain replacement for each.

    python scripts/plain_english.py              # all files that git tracks here
    python scripts/plain_english.py DIRECTORY    # the files of another working tree

The script reads comments and strings of Python files, and the whole text of Markdown, YAML and TOML files, of
``Makefile`` and of ``tests/experiment/errors.txt``. Identifiers such as ``go_on`` are ignored. Each idiom that is found
is printed as ``file:line: idiom: advice``. At the end, the number of occurrences of each idiom is printed. The exit
code is 1 if an idiom was found, otherwise 0.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

# Idiom: (pattern, advice). A space in a pattern matches any white space, so an idiom may continue on the next line.
IDIOMS = {
    "affair": (r"\baffairs?\b", "name the object that is responsible"),
    "anew": (r"\banew\b", "write: again, from the start, a new …"),
    "at no cost worth": (r"\bno cost worth\b", "write: cheaply, or give the cost"),
    "comes to the same": (r"\bcom(?:e|es|ing) to the same\b", "write: gives equal results"),
    "for ever": (r"\bfor ever\b", "write: forever, without limit"),
    "go on": (r"\b(?:go|goes|going|went|gone) on\b", "write: resume, continue"),
    "has it": (r"\b(?:has|have|had) it[.;:]", "repeat the noun"),
    "in the place of": (r"\bin (?:the place of|(?:its|their) (?:place|stead))\b", "write: instead of"),
    "is none": (r"\bthat (?:is|are|was|were) none\b", "write: an invalid …, not a …"),
    "is said": (r"\b(?:is|are|was|were|be|been) said\b", "say what does it: the message says, a warning is logged"),
    "is told": (r"\b(?:is|are|was|were|be|been) told\b|\b(?:tells?|told) of\b", "write: gets, receives; reports"),
    "lies about": (r"\bl(?:ie|ies|ied|ying) about\b", "write: declares a wrong …; is in the same folder"),
    "mend": (r"\bmend(?:s|ed|ing)?\b", "write: fix, repair"),
    "no more of": (r"\bno more of\b", "write: less, fewer, only"),
    "nobody": (r"\b(?:no|some|any)body\b", "name the object that acts, or use the passive"),
    "of one's own": (r"\bof one's own\b", "write: your own …"),
    "of the user's": (
        r"\bof (?:the|a) (?:user|caller)'s(?: own\b|(?=[.,;:)]| (?:and|is|are|that|which|in|has|may|or|with|to)\b))",
        "write: the user's data set, the caller's streams",
    ),
    "old words": (r"\b(?:lest|heed(?:s|ed)?|shall|thereof|therein|wherein|whereof|hitherto)\b", "use a common word"),
    "once more": (r"\bonce more\b", "write: again"),
    "ought": (r"\bought\b", "write: should, must"),
    "see to": (r"\bsees? to\b", "write: make sure"),
    "so many": (r"\bso (?:many|much)\b(?! (?:as|(?:\w+ )?that))", "write: that many, N …"),
    "sought": (r"\bsought\b", "write: located, looked up, computed directly"),
    "stands in": (r"\b(?:stands?|stood) (?:in|at|on|under|above|below|beside)\b", "write: is in, is listed in"),
    "that of": (r"\b(?:that|those) of\b", "repeat the noun"),
    "under way": (r"\bunder way\b", "write: in progress, running"),
    "what it is of": (r"\bwhat (?:it is|they are) of\b", "use a noun"),
    "whatever": (r"\bwhat(?:so)?ever\b", "name the object, or write: any, every"),
    "whoever": (r"\bwho(?:so)?ever\b", "name the object that acts"),
    "without a word": (r"\bwithout a word\b", "write: silently"),
}
# File, string that an exempt line contains ("" if all lines are exempt), and the reason for the exemption.
EXEMPT = (
    ("scripts/plain_english.py", "", "lists the idioms"),
    ("tests/test_plain_english.py", "", "has a sample of each idiom"),
)

_COMPILED = {idiom: re.compile(pattern.replace(" ", r"\s+"), re.I) for idiom, (pattern, _) in IDIOMS.items()}
_NAMES = ("Makefile", "tests/experiment/errors.txt")
_F_STRING = ("FSTRING_START", "FSTRING_MIDDLE", "FSTRING_END")  # the tokens of an f-string since Python 3.12
_READ = {tokenize.COMMENT, tokenize.STRING, *(getattr(tokenize, name, tokenize.STRING) for name in _F_STRING)}
_MARKS = re.compile(r"^#|^[rRbBfFuU]{0,2}(?:\"\"\"|\'\'\'|\"|\')|(?:\"\"\"|\'\'\'|\"|\')$|\\n")


def prose(name: str, text: str) -> str:
    """Return the text of a file, with NUL instead of each character of code. Line numbers do not change."""
    if not name.endswith(".py"):
        return re.sub(r"(?m)^(\s*)#", r"\1 ", text)
    starts = [0, *(found.end() for found in re.finditer("\n", text))]
    readable = list(re.sub(r"\S", "\0", text))  # NUL: an idiom does not continue across code
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in _READ:
            start, end = (starts[line - 1] + column for line, column in (token.start, token.end))
            words = text[start:end]
            if re.match("[rR]?[fF][\"']", words):  # up to Python 3.11, an f-string with its code is one token
                words = re.sub(r"\{[^{}]*\}", lambda code: "\0" * len(code[0]), words)
            words = _MARKS.sub(lambda mark: " " * len(mark[0]), words)
            readable[start:end] = words
    return "".join(readable)


def find(name: str, text: str) -> Iterator[tuple[int, str, str]]:
    """Yield the line number, the name and the matched words of each idiom in a file, except in exempt lines."""
    lines = text.splitlines()
    readable = prose(name, text)
    for idiom, pattern in _COMPILED.items():
        for found in pattern.finditer(readable):
            number = readable.count("\n", 0, found.start()) + 1
            if not any(name == file and part in lines[number - 1] for file, part, _ in EXEMPT):
                yield number, idiom, " ".join(found[0].split())


def main(root: Path) -> int:
    """Print the idioms in the files that git tracks under ``root``, and return the exit code."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, check=True, capture_output=True, text=True).stdout
    counts: Counter[str] = Counter()
    for name in sorted(listed.split("\0")):
        if name in _NAMES or name.endswith((".py", ".md", ".yaml", ".toml")):
            for number, idiom, _ in sorted(find(name, (root / name).read_text(encoding="utf-8"))):
                print(f"{name}:{number}: {idiom}: {IDIOMS[idiom][1]}")
                counts[idiom] += 1
    for idiom, count in counts.most_common():
        print(f"{count:5}  {idiom}")
    return 1 if counts else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else ".")))
