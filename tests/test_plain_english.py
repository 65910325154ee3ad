"""`scripts/plain_english.py` finds its idioms in comments, strings and documents, and nothing else."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from plain_english import IDIOMS, find, main

SAMPLES = {
    "affair": "Further names are the caller's affair.",
    "anew": "The files are written anew.",
    "at no cost worth": "This is seen at no cost worth a name.",
    "comes to the same": "Both ways come to the same.",
    "for ever": "The main process waits for ever.",
    "go on": "The run goes on from its checkpoint.",
    "has it": "The dropout stays as the model has it.",
    "in the place of": "A list in the place of a tuple.",
    "is none": "Refuse a count that is none.",
    "is said": "A wrong value is said in one line.",
    "is told": "The sampler is told the pass.",
    "lies about": "A file that lies about its size.",
    "mend": "The checkpoint is mended.",
    "no more of": "No more of it is read.",
    "nobody": "A hook that nobody overrides.",
    "of one's own": "A callback of one's own.",
    "of the user's": "A dataset of the user's.",
    "old words": "What it shall return.",
    "once more": "It is hashed once more.",
    "ought": "What ought to be equal.",
    "see to": "See to it that it is closed.",
    "so many": "After so many steps.",
    "sought": "Any batch is sought.",
    "stands in": "The version stands in the manifest.",
    "that of": "The loss is that of the batch.",
    "under way": "A save is under way.",
    "what it is of": "Say what it is of.",
    "whatever": "Close it whatever happens.",
    "whoever": "It ends with whoever reads.",
    "without a word": "It is left out without a word.",
}
PLACES = {
    "comment.py": "x = 1  # {}\n",
    "docstring.py": 'def f() -> None:\n    """{}"""\n',
    "string.py": 'print("Note: {}")\n',
    "f_string.py": 'print(f"{{x}} Note: {}")\n',
    "page.md": "# Title\n\n{}\n",
    "options.yaml": "value: 1  # {}\n",
}


def test_there_is_a_sample_of_each_idiom() -> None:
    assert sorted(SAMPLES) == sorted(IDIOMS)


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("idiom", SAMPLES)
def test_each_idiom_is_found_in_each_place(idiom: str, name: str) -> None:
    text = PLACES[name].format(SAMPLES[idiom])
    ((number, found, words),) = find(name, text)
    assert found == idiom
    assert words.lower() in SAMPLES[idiom].lower()
    assert SAMPLES[idiom] in text.splitlines()[number - 1]


@pytest.mark.parametrize(
    ("name", "text", "number"),
    [
        ("comment.py", "x = 1\n# A run that goes\n# on.\n", 2),
        ("docstring.py", '"""A run that\n\ngoes\non.\n"""\n', 3),
        ("joined.py", 'print(\n    "a run that goes "\n    "on"\n)\n', 2),
        ("joined.py", 'print(\n    f"a run {x} goes "\n    f"on {x}"\n)\n', 2),
        ("lines.py", 'print("first\\nwhoever reads")\n', 1),
        ("page.md", "A run that goes\non.\n", 1),
        ("options.yaml", "# A run that goes\n# on.\n", 1),
    ],
)
def test_an_idiom_may_continue_on_the_next_line(name: str, text: str, number: int) -> None:
    assert [found[0] for found in find(name, text)] == [number]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("names.py", "def go_on(whoever: int, nobody: str) -> None:\n    whatever = goes_on = whoever\n"),
        ("code.py", 'print(f"{whoever} {nobody} {whatever}")\n'),
        ("apart.py", 'print("the run goes", x, "on")\n'),
        ("apart.py", 'x = "that", y, "of"  # of\n'),
        ("plain.py", '"""Resume a run. The user\'s data set is read again, in the order of the user\'s sampler."""\n'),
        ("page.md", "`go_on` stays. The log shows the message. Do this so many times that the mean settles.\n"),
        ("options.yaml", "standing: 1  # the loss of the last step, forever\n"),
    ],
)
def test_identifiers_and_plain_text_pass(name: str, text: str) -> None:
    assert list(find(name, text)) == []


def test_the_command_reads_tracked_files_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    (tmp_path / "page.md").write_text("The run goes on.\nNobody\nwaits, and it goes on.\n", encoding="utf-8")
    assert main(tmp_path) == 0
    assert capsys.readouterr().out == ""
    subprocess.run(["git", "add", "."], cwd=tmp_path, check=True)
    assert main(tmp_path) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        f"page.md:1: go on: {IDIOMS['go on'][1]}",
        f"page.md:2: nobody: {IDIOMS['nobody'][1]}",
        f"page.md:3: go on: {IDIOMS['go on'][1]}",
    ]
    assert [line.split() for line in lines[3:]] == [["2", "go", "on"], ["1", "nobody"]]
