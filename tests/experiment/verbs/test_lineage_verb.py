"""``loopwright lineage`` as users type it, over real runs, and over directories of strangers."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from command import Answer, run_dirs, run_each_in
from left_runs import leave_run
from limited import limited
from planted_runs import plant, state_of_files

Cli = Callable[..., Answer]


def rows(answer: Answer) -> list[dict[str, Any]]:
    assert (answer.code, answer.err) == (0, ""), answer
    found: list[dict[str, Any]] = json.loads(answer.out)
    return found


@pytest.mark.slow
def test_a_real_run_records_its_origin_and_is_found_after_it_was_moved(small: Cli, cli: Cli, tmp_path: Path) -> None:
    assert small().code == 0
    (first,) = run_dirs(tmp_path)
    assert small("init_from=last").code == 0
    second = run_dirs(tmp_path)[-1]
    ((path, origin),) = json.loads((second / "summary.json").read_text())["origins"].items()
    assert path == str(first.relative_to(tmp_path) / "checkpoints" / "step_00000004")
    assert (origin["run"], origin["step"], len(origin["sha256"])) == (first.name[-6:], 4, 64)
    assert cli("resume", str(second), "loop.max_steps=6").code == 0
    found = rows(cli("lineage", "last", "format=json"))
    assert [(row["relation"], row["id"], row["from_steps"]) for row in found] == [
        ("ancestor", first.name[-6:], []),
        ("run", second.name[-6:], [4]),
    ]
    assert (found[1]["resumed_from"], found[1]["checkpoint"], found[1]["global_step"]) == ([4], "unchanged", 6)
    lines = cli("lineage", second.name[-6:]).out.splitlines()
    assert lines[0].startswith(first.name[-6:]) and f"└ {second.name[-6:]} (this run)   from step 4 " in "\n".join(
        lines
    )
    assert any(line.strip() == "resumed from step 4" for line in lines)
    shutil.move(first, tmp_path / "outputs" / "kept")
    found = rows(cli("lineage", "outputs/kept", "format=json"))
    assert [row["directory"] for row in found] == ["outputs/kept", str(second.relative_to(tmp_path))]
    assert (
        json.loads(cli("runs", "format=json", f"id={second.name[-6:]}").out)[0]["from"] == f"{first.name[-6:]}, step 4"
    )


def test_all_formats_have_the_same_fields(cli: Cli, tmp_path: Path) -> None:
    leave_run(tmp_path / "outputs", "00000a", objective="NaN")
    (row,) = rows(cli("lineage", "00000a", "format=json"))
    assert row["objective"] == "NaN"
    (cells,) = csv.DictReader(io.StringIO(cli("lineage", "00000a", "format=csv").out))
    assert list(cells) == list(row) and cells["objective"] == "NaN"
    assert cli("lineage", "00000a", "format=md").out.startswith(f"| {' | '.join(row)} |")


def test_a_run_without_relatives(cli: Cli, tmp_path: Path) -> None:
    leave_run(tmp_path / "outputs", "00000a")
    answer = cli("lineage", "00000a")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.splitlines()[-1] == "No run in outputs/ starts from it, and it starts from no other run."


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["last"], 3, "last: no training in outputs/; expected the path of a run directory."),
        (["mine"], 3, "mine: no such folder; expected a run directory."),
        (["."], 3, ".: no run; expected a run directory."),
        ([], 2, "lineage: expected one run directory; use loopwright lineage DIR."),
        ([".", "depth=2"], 2, "depth=2: no such option. Available: format."),
        ([".", "format=xml"], 2, "format='xml': expected text, json, csv or md."),
    ],
)
def test_errors_are_one_line(words: list[str], code: int, said: str, cli: Cli) -> None:
    answer = cli("lineage", *words)
    assert (answer.code, answer.out, answer.err) == (code, "", f"{said}\n")


def test_a_sweep_names_its_jobs(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "swept").mkdir()
    (tmp_path / "swept" / "sweep.json").write_text("{}")
    answer = cli("lineage", "swept")
    said = "swept: contains a sweep; expected the directory of a job, such as swept/0.\n"
    assert (answer.code, answer.out, answer.err) == (3, "", said)


def test_directories_of_strangers_run_nothing_and_change_nothing(tmp_path: Path) -> None:
    assert plant(tmp_path) == 24
    before = state_of_files(tmp_path)
    paths = sorted((tmp_path / "outputs").glob("*/*"))
    commands = [["lineage", str(path), *words] for path in paths for words in ([], ["format=json"])]
    for words, answer in zip(commands, limited(run_each_in, tmp_path, commands), strict=True):
        assert answer.code in (0, 3) and answer.err.count("\n") == (answer.code != 0), answer
        assert (answer.out + answer.err).replace("\n", "").isprintable()
        assert "format=json" not in words or answer.code or json.loads(answer.out)
    assert state_of_files(tmp_path) == before
