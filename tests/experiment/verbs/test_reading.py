"""Commands that only read: each entry of the table names a function, and none of them imports torch or Hydra."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from command import environment
from left_runs import leave_run
from loopwright.experiment.console.reading_verbs import READING_VERBS

HEAVY = ("torch", "hydra", "omegaconf", "matplotlib", "numpy")


@pytest.mark.parametrize("verb", READING_VERBS)
def test_an_entry_names_a_function(verb: str) -> None:
    module, _, function = READING_VERBS[verb].function.partition(":")
    assert callable(getattr(import_module(module), function))
    assert READING_VERBS[verb].meaning.startswith(verb)


@pytest.mark.parametrize("verb", READING_VERBS)
def test_a_command_that_only_reads_imports_no_heavy_package(verb: str, tmp_path: Path) -> None:
    runs = [leave_run(tmp_path / "outputs", digits) for digits in ("c623ba", "c623bb")]
    words = [verb, *map(str, runs[: READING_VERBS[verb].least])]
    code = f"import sys; from loopwright.cli import main; code = main({words!r}); "
    code += f"assert code == 0, code; assert not [name for name in {HEAVY!r} if name in sys.modules]"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
