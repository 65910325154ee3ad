"""The loggers of a trainer that is given none: a progress line in a terminal and in a notebook, nothing elsewhere."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stdout
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import tiny
from loopwright.loggers import ProgressLogger


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def kinds(**settings: Any) -> list[type]:
    return [type(logger) for logger in tiny.trainer(**settings).loggers]


def use_ipython(monkeypatch: pytest.MonkeyPatch, shell: object) -> None:
    module = ModuleType("IPython")
    monkeypatch.setattr(module, "get_ipython", lambda: shell, raising=False)
    monkeypatch.setitem(sys.modules, "IPython", module)


def test_no_terminal_and_no_notebook_no_logger(capsys: pytest.CaptureFixture[str]) -> None:
    with tiny.trainer() as trainer:
        trainer.fit(tiny.batches())
    assert trainer.loggers == ()
    assert capsys.readouterr().out == ""


def test_a_terminal_shows_the_plan_and_the_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    with redirect_stdout(Terminal()) as terminal, tiny.trainer() as trainer:
        trainer.fit(tiny.batches(), tiny.batches(1))
    assert [type(logger) for logger in trainer.loggers] == [ProgressLogger]
    assert "Plan: train 5 steps" in terminal.getvalue() and "step 5/5  val/loss " in terminal.getvalue()


def test_a_notebook_shows_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    use_ipython(monkeypatch, SimpleNamespace())
    with tiny.trainer() as trainer:
        trainer.fit(tiny.batches(), tiny.batches(1))
    shown = capsys.readouterr().out
    assert "step 5/5  val/loss " in shown and "\x1b" not in shown


def test_a_script_that_imports_ipython_is_no_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    use_ipython(monkeypatch, None)
    assert kinds() == []


@pytest.mark.parametrize("loggers", [[], {}])
def test_an_empty_list_means_no_logger(loggers: Any) -> None:
    with redirect_stdout(Terminal()) as terminal:
        assert kinds(loggers=loggers) == []
    assert terminal.getvalue() == ""


@pytest.mark.parametrize("stdout", [None, "closed"])
def test_a_process_without_a_standard_output_has_no_logger(stdout: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stdout", stdout and closed)
    assert kinds() == []
