"""``loopwright show`` as users type it: by a path, six digits or ``last``; runs, jobs and sweeps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from command import Answer, run_dirs
from left_runs import leave_run

Cli = Callable[..., Answer]


def test_a_real_run_is_shown_by_each_name(small: Cli, cli: Cli, tmp_path: Path) -> None:
    assert small("optimizer.lr=0.01").code == 0
    (run,) = run_dirs(tmp_path)
    shown = run.relative_to(tmp_path)
    summary = json.loads((run / "summary.json").read_text())
    answers = [cli("show", given) for given in ("last", run.name[-6:], str(shown))]
    assert len(set(answers)) == 1 and (answers[0].code, answers[0].err) == (0, "")
    out = answers[0].out
    assert out.startswith(f"{run.parent.name} {run.name[-6:]}: completed at step 4 of 4\n  {shown}\n")
    assert f"val/loss            {summary['objective']:.4g}, best {summary['best']['value']:.4g} at step " in out
    assert "optimizer.lr=0.01" in out and "2, at step 2, 4; " in out
    assert f"Train for longer: loopwright resume {shown} loop.max_steps=8\n" in out
    assert f"Validate: loopwright validate {shown}\n" in out and f"Reproduce: loopwright reproduce {shown}" in out

    found = json.loads(cli("show", "last", "format=json").out)
    assert found["objective"] == summary["objective"] and found["metrics"]["val/loss"]["last_step"] == 4
    assert [each["step"] for each in found["checkpoints"]] == [2, 4] and found["commands"]["Validate"]
    (row,) = json.loads(cli("runs", "format=json").out)
    assert {name: found[name] for name in row} == row


@pytest.mark.slow
def test_a_sweep_and_its_jobs(small: Cli, cli: Cli, tmp_path: Path) -> None:
    assert small("-m", "optimizer.lr=0.1,0.2").code == 0
    (sweep,) = (tmp_path / "outputs").glob("*/*_sweep")
    digits = sweep.name.removesuffix("_sweep")[-6:]
    assert cli("show", digits).out == cli("sweep", "show", digits).out
    assert cli("show", digits, "format=csv").out == cli("sweep", "show", digits, "format=csv").out
    answer = cli("show", f"{digits}/1")
    assert answer.code == 0 and f" {digits}/1: completed at step 4 of 4\n" in answer.out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["nowhere"], 3, "nowhere: no such folder; expected a run directory."),
        (["ffffff"], 3, "ffffff: no such path, and no name of a run directory in outputs/ ends with ffffff."),
        (["outputs/digits"], 3, "outputs/digits: no run; expected a run directory."),
        (["aaaaaa", "format=csv"], 2, "format='csv': expected text or json."),
        (["aaaaaa", "frmat=json"], 2, "frmat=json: no such option. Available: format. Did you mean format?"),
    ],
)
def test_errors_are_one_line(words: list[str], code: int, said: str, cli: Cli, tmp_path: Path) -> None:
    leave_run(tmp_path / "outputs", "aaaaaa")
    answer = cli("show", *words)
    assert (answer.code, answer.out, answer.err) == (code, "", f"{said}\n")
