"""Text in a terminal: wrapped lines keep their words, and commands can still be pasted."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopwright.terminal_text import wrapped


@given(st.lists(st.text("abc -.:", min_size=1, max_size=60), max_size=5).map("\n".join), st.integers(20, 120))
def test_wrapped_text_keeps_its_words_and_only_a_long_word_is_wider(text: str, width: int) -> None:
    lines = wrapped(text, width).split("\n")
    assert [word for line in lines for word in line.split()] == text.split()
    assert all(len(line) <= width or len(line.split()) == 1 for line in lines)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "  saves          after every step and after the last",
            "  saves          after every step and\n" + 17 * " " + "after the last",
        ),
        ("  model: cnn, gpt, mlp, mlp_regressor, vit", "  model: cnn, gpt, mlp, mlp_regressor,\n    vit"),
        (
            "Curves: outputs/a-very-long-name/with-hyphens/curves.png",
            "Curves:\n  outputs/a-very-long-name/with-hyphens/curves.png",
        ),
        ("short  line", "short  line"),
    ],
)
def test_the_text_of_a_row_continues_below_its_beginning(line: str, expected: str) -> None:
    assert wrapped(line, 40) == expected


def test_a_wrapped_command_can_be_pasted_into_a_shell() -> None:
    command = "loopwright resume outputs/digits/2026-11-30_10-09-09_f3019d 'callbacks.x=[a, b]' loop.max_steps=4000"
    label, *lines = wrapped(f"Train it for longer: {command}", 70).split("\n")
    assert label == "Train it for longer:"
    assert len(lines) == 2 and all(len(line) <= 70 for line in lines)
    assert shlex.split("\n".join(lines).replace("\\\n", "")) == shlex.split(command)
    assert wrapped("Note: loopwright can't be pasted", 20) == "Note:\n  loopwright can't be pasted"
