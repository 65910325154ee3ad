"""Every command accepts every directory name, and the commands that are printed can be typed as they are."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from command import Answer
from loopwright.experiment.compose.overrides import override_text
from loopwright.experiment.console.command_line import read_command_line, shell_line, words_on
from loopwright.experiment.console.messages import one_line
from loopwright.terminal_text import wrapped

Cli = Callable[..., Answer]

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0") | st.sampled_from(" '\"\\$=~\n"))
NAMES = TEXT.filter(lambda name: name.strip("./") != "").map(lambda name: name.replace("/", ":"))

# Names with characters that mean something to a shell, to Hydra's grammar, to OmegaConf or to glob patterns.
ODD_NAMES = ["a=b", "~home", "it's  two", "${seed}"]
MORE_NAMES = [
    "[a,b]", "loop.max_steps=3", "+a", "--help", "$HOME",
    "\\${seed}", 'say "hi"', "{a: 1}", "null", "é☃ ", "#a;b&|*?", "a\\"
]  # fmt: skip


def shell_words(line: str) -> list[str]:
    """Return the words that a shell reads."""
    command = ["bash", "-c", f"set -- {line}; printf '%s\\0' \"$@\""]
    return [
        os.fsdecode(word) for word in subprocess.run(command, capture_output=True, check=True).stdout.split(b"\0")[:-1]
    ]


@given(st.lists(TEXT, min_size=1, max_size=5))
def test_a_shell_reads_the_same_words(words: list[str]) -> None:
    line = shell_line(words)
    assert shell_words(line) == words
    assert one_line(f"type {line}") == f"type {line}"  # a message does not change it


@given(st.lists(TEXT, min_size=1, max_size=5), st.integers(10, 60))
def test_a_shell_reads_the_same_words_from_a_wrapped_command(words: list[str], width: int) -> None:
    shown = wrapped(f"Label: {shell_line(['loopwright', *words])}", width)
    assert shell_words(shown.removeprefix("Label:").lstrip()) == ["loopwright", *words]


def test_a_shell_reads_bytes_that_are_no_text() -> None:
    assert shell_words(shell_line([os.fsdecode(b"a\xff b")])) == [os.fsdecode(b"a\xff b")]


@given(NAMES)
def test_a_printed_command_names_the_directory(name: str) -> None:
    line = read_command_line(words_on("resume", Path(name), ["--trust=pkg"]))
    assert (line.verb, line.overrides, line.trust) == ("resume", (), ("pkg",))
    assert line.directory is not None and Path(line.directory) == Path(name)


@pytest.fixture(params=[*ODD_NAMES, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE_NAMES)])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def printed(answer: Answer, label: str) -> list[str]:
    """Return the words after ``loopwright`` of the command with this label."""
    (line,) = [each for each in answer.out.splitlines() if f"{label}: " in each]
    first, *words = shell_words(line.partition(f"{label}: ")[2])
    assert first == "loopwright"
    return words


@pytest.mark.slow
def test_each_command_works_on_a_directory_with_an_odd_name(name: str, small: Cli, cli: Cli, tmp_path: Path) -> None:
    first = small(override_text("hydra.run.dir", name))
    assert (first.code, first.err) == (0, "")
    assert (tmp_path / name / "summary.json").is_file()
    again = cli(*printed(first, "Train it for longer"))
    assert again.code == 0, again.err
    typed = f"./{name}" if name.startswith("-") else name
    for words in (["resume", typed], ["validate", typed], ["reproduce", typed], ["export", typed]):
        answer = cli(*words)
        assert (answer.code or answer.out.startswith("What"), answer.err) == (answer.code, ""), words
        assert answer.code == 0 or words[0] == "reproduce"
    assert cli(*printed(first, "Validate it")).code == 0
    assert cli(*printed(cli("resume", typed), "To train it for longer")).code == 0
    started = small("loop.max_steps=2", override_text("init_from", name), override_text("hydra.run.dir", f"{name}2"))
    assert (started.code, started.err) == (0, "")
    refused = small(override_text("ckpt_path", name), "model.hidden=[5]")
    assert refused.code == 2
    command = refused.err.partition("to validate the checkpoint with the recorded model: ")[2].removesuffix(".\n")
    assert cli(*shell_words(command)[1:]).code == 0


def test_imported_weights_with_an_odd_name_can_be_used(name: str, cli: Cli, small: Cli, tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 3)
    torch.save(model.state_dict(), tmp_path / "saved")
    (tmp_path / "saved").rename(tmp_path / f"{name}.pt")
    typed = f"./{name}.pt" if name.startswith("-") else f"{name}.pt"
    answer = cli("import-weights", typed)
    assert (answer.code, answer.err) == (0, "")
    (word,) = printed(answer, "Train from them")
    refused = small(word)
    assert f"{one_line(f'{name}_weights')}: " in refused.err  # found, but the weights of another model


def test_a_directory_of_configurations_with_an_odd_name_is_read(name: str, small: Cli, tmp_path: Path) -> None:
    (tmp_path / name / "callbacks").mkdir(parents=True)
    (tmp_path / name / "callbacks" / "mine.yaml").write_text("lr: null\n")
    answer = small(f"--config-dir={name}", "callbacks=mine", "loop.max_steps=1")
    assert (answer.code, answer.err) == (0, "")


@pytest.mark.slow
def test_data_with_an_odd_name_are_read(name: str, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / name).write_text("area,price\n" + "".join(f"{row},{row * row}\n" for row in range(20)))
    words = ["data=csv", "data.target=price", "model=mlp_regressor", "model.in_features=1", "loop.max_steps=2"]
    first = cli(*words, override_text("data.path", name), "hydra.run.dir=run", "checkpoint.every_n_steps=2")
    assert (first.code, first.err) == (0, "")
    (tmp_path / name).write_text("area,price\n" + "".join(f"{row},{row**3}\n" for row in range(20)))
    refused = cli("validate", "run")
    assert refused.code == 2
    command = refused.err.rpartition(", type ")[2].removesuffix(".\n")
    assert cli("validate", "run", *shell_words(command)).code == 0
