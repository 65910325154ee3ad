"""``loopwright compare`` as users type it, over real runs and sweeps, and over directories of strangers."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from command import Answer, run_each_in
from left_runs import leave_run, write_run
from limited import limited
from loopwright.experiment.reading.comparison_rows import FIELDS
from planted_runs import plant, state_of_files
from sweeps import index_of

Cli = Callable[..., Answer]
RUN = "outputs/digits/2026-11-01_09-15-05_000000"
USAGE = "loopwright compare DIR DIR [DIR …] [all=true]"


def rows(answer: Answer) -> dict[tuple[str, str], list[Any]]:
    """Return the values of all runs by the section and the name of the row."""
    assert (answer.code, answer.err) == (0, ""), answer
    return {(row["section"], row["name"]): list(row.values())[2:] for row in json.loads(answer.out)}


def digest(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """Six runs with different learning rates, of which the first two have recorded environments."""
    outputs = tmp_path / "outputs"
    for number in range(6):
        run = leave_run(
            outputs,
            f"00000{number}",
            state="failed" if number == 1 else "completed",
            global_step=50 if number == 1 else 100,
            config=f"optimizer:\n  lr: 0.{number + 1}\n  betas: [0.9, 0.99]\nseed: 0\n",
            values={"val/loss": [0.5, 0.25 + number], "train/loss": [1.0, "NaN"]},
            metrics={"val/loss": 0.25 + number, "train/loss": "NaN"},
            chosen={"model": "mlp"},
            data={"train_content_sha256": digest(min(number, 2))},
        )
        packages = {"numpy": f"2.{number}", "torch": "2.13", "rich": f"14.{number}"}
        environment = {"python": "3.11", "packages": packages, "git": {"commit": digest(number)[:40]}}
        if number < 2:
            (run / "environment.json").write_text(json.dumps(environment))
    return outputs


def test_two_runs_show_only_what_differs(cli: Cli, outputs: Path) -> None:
    answer = cli("compare", "000000", "000001")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out == (
        "                         000000      000001\n"
        "  state                  completed   failed\n"
        "  steps                  100         50 of 100\n"
        "  time                   1:00        1:00\n"
        "\n"
        "metrics\n"
        "  val/loss               0.25        1.25\n"
        "    best                 0.25        0.50\n"
        "    at step              20          10\n"
        "  train/loss             NaN         NaN\n"
        "\n"
        "configuration\n"
        "  optimizer.lr           0.1         0.2\n"
        "\n"
        "environment\n"
        "  2 packages differ: numpy, rich; all=true shows the versions\n"
        "\n"
        "source\n"
        f"  git.commit             {digest(0)[:8]}    {digest(1)[:8]}\n"
        "\n"
        "data\n"
        f"  train_content_sha256   {digest(0)[:8]}    {digest(1)[:8]}\n"
    )
    assert "betas" not in answer.out and "Equal" not in answer.out


def test_all_packages_are_shown_if_asked(cli: Cli, outputs: Path) -> None:
    out = cli("compare", "000000", "000001", "all=true").out
    assert re.search(r"\npackages\n  numpy +2\.0 +2\.1\n  rich +14\.0 +14\.1\n", out) and "2 packages" not in out


def test_many_runs_are_lines(cli: Cli, outputs: Path) -> None:
    answer = cli("compare", *(f"00000{number}" for number in range(6)))
    lines = answer.out.splitlines()
    assert lines[0].split() == ["id", "state", "steps", "val/loss", "time", "differs", "in"]
    assert [line.split()[0] for line in lines[1:7]] == [f"00000{number}" for number in range(6)]
    assert [line.split()[-1] for line in lines[1:7]] == [f"optimizer.lr=0.{number + 1}" for number in range(6)]
    assert "2 packages differ: numpy, rich; all=true shows the versions" in lines
    assert "Not compared: environment (000002, 000003, 000004, 000005 did not record it)." in lines
    place = lines.index("data")
    assert lines[place + 1].strip() == "train_content_sha256"
    assert lines[place + 2].endswith(" 000000") and lines[place + 4].endswith(" 000002, 000003, 000004, 000005")


def test_equal_runs_say_so(cli: Cli, tmp_path: Path) -> None:
    for digits in ("00000a", "00000b"):
        run = leave_run(tmp_path / "outputs", digits, data={"a": 1})
        (run / "environment.json").write_text('{"python": "3.11"}')
    answer = cli("compare", "00000a", "00000b")
    assert (answer.code, answer.out.splitlines()[-1]) == (0, "Equal: configuration, environment, source, data.")


def test_all_formats_have_the_same_fields_in_the_same_order(cli: Cli, outputs: Path) -> None:
    words = ["compare", "000000", "000001"]
    found = json.loads(cli(*words, "format=json").out)
    assert all(tuple(row) == (*FIELDS, "000000", "000001") for row in found)
    cells = list(csv.reader(io.StringIO(cli(*words, "format=csv").out)))
    assert cells[0] == list(found[0]) and len(cells) == len(found) + 1
    table = cli(*words, "format=md").out.splitlines()
    assert table[0] == "| section | name | 000000 | 000001 |" and len(table) == len(found) + 2
    by_name = rows(cli(*words, "format=json"))
    assert by_name["last", "train/loss"] == ["NaN", "NaN"]
    assert by_name["best", "val/loss"] == [0.25, 0.5] and by_name["best_step", "val/loss"] == [20, 10]
    assert by_name["packages", "numpy"] == ["2.0", "2.1"]
    assert ["last", "train/loss", "NaN", "NaN"] in cells


def test_a_setting_that_is_missing_is_not_a_null(cli: Cli, tmp_path: Path) -> None:
    for digits, text in (("00000a", "a: null\nb: 'null'\nc: 1\n"), ("00000b", "b: null\nc: '1'\n")):
        leave_run(tmp_path / "outputs", digits, config=text)
    found = rows(cli("compare", "00000a", "00000b", "format=json"))
    assert [found["configuration", name] for name in "abc"] == [[None, "not set"], ["null", None], [1, "1"]]
    out = cli("compare", "00000a", "00000b").out
    for line in (r"a +null +–", r"b +'null' +null", r"c +1 +'1'"):
        assert re.search(rf"\n  {line}\n", out), out


@pytest.mark.parametrize("columns", ["40", "80", "120"])
@pytest.mark.parametrize("num_runs", [2, 4, 6])
def test_no_line_is_wider_than_the_terminal(
    columns: str, num_runs: int, cli: Cli, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    for all_too in ("all=false", "all=true"):
        out = cli("compare", *(f"00000{number}" for number in range(num_runs)), all_too).out
        too_long = [line for line in out.splitlines() if cell_len(line) > int(columns)]
        assert too_long == [] and "0.2" in out


def test_real_runs(recorded: Path, small: Cli, cli: Cli) -> None:
    assert small("hydra.run.dir=other", "model.hidden=[8]").code == 0
    found = rows(cli("compare", "run", "other", "format=json"))
    assert found["configuration", "model.hidden"] == [[4], [8]]
    assert [key for key in found if key[0] in ("environment", "packages", "source", "data")] == []
    assert found["run", "state"] == ["completed", "completed"]


def test_a_run_and_a_sweep_are_not_compared(cli: Cli, tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    (tmp_path / "swept").mkdir()
    (tmp_path / "swept" / "sweep.json").write_text("{}")
    answer = cli("compare", "swept", "run")
    said = "compare: run is a run and swept is a sweep; expected runs, such as swept/0 for a job, or sweeps.\n"
    assert (answer.code, answer.out, answer.err) == (2, "", said)


@pytest.mark.slow
def test_sweeps_are_compared_by_their_groups(small: Cli, cli: Cli, tmp_path: Path) -> None:
    assert small("-m", "optimizer.lr=0.1,0.2", "seed=0,1", "hydra.sweep.dir=one").code == 0
    words = ["optimizer.lr=0.2", "model.hidden=[4],[8]", "seed=0,1", "loop.max_steps=2", "hydra.sweep.dir=two"]
    assert small("-m", *words).code == 0
    answer = cli("compare", "one", "two")
    assert (answer.code, answer.err) == (0, "")
    lines = answer.out.splitlines()
    assert lines[0].split() == ["one", "two", "difference,", "same", "seeds"]
    assert lines[1].split() == ["state", *["4", "of", "4", "done"], *["4", "of", "4", "done"]]
    start = lines.index("val/loss, mean ± s.d.")
    assert [line[2:].split("   ")[0].strip() for line in lines[start + 1 : start + 4]] == [
        "lr=0.2 hidden=[4]",
        "lr=0.1 hidden=[4]",
        "lr=0.2 hidden=[8]",
    ]
    assert lines[start + 1].endswith(" of 2") and "–" in lines[start + 2]
    assert re.search(r"\n  loop.max_steps +4 +2\n", answer.out) and "seed " not in answer.out
    found = rows(cli("compare", "one", "two", "format=json"))
    means = [index_of(tmp_path / name)["groups"][place]["mean"] for name, place in (("one", 1), ("two", 0))]
    assert found["mean", "lr=0.2 hidden=[4]"] == means
    assert found["difference", "lr=0.2 hidden=[4]"] == [None, pytest.approx(means[1] - means[0])]
    assert found["num_pairs", "lr=0.2 hidden=[4]"] == [None, 2]
    assert found["mean", "lr=0.2 hidden=[8]"][0] is None
    assert found["configuration", "loop.max_steps"] == [4, 2]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["000000"], 2, f"compare: expected two or more run directories, not 1; use {USAGE}."),
        (["000000", RUN], 2, f"compare: {RUN} is given twice; expected different runs."),
        (["000000", "nowhere"], 3, "nowhere: no such folder; expected a run directory."),
        (["000000", "00000f"], 3, "00000f: no such path, and no name of a run directory in outputs/ ends with 00000f."),
        (["000000", "000001", "al=true"], 2, "al=true: no such option. Available: all, format. Did you mean all?"),
        (["000000", "000001", "all=yes"], 2, "all='yes': expected true or false."),
        (["000000", "000001", "format=xml"], 2, "format='xml': expected text, json, csv or md."),
    ],
)  # fmt: skip
def test_errors_are_one_line(words: list[str], code: int, said: str, cli: Cli, outputs: Path) -> None:
    answer = cli("compare", *words)
    assert (answer.code, answer.out, answer.err) == (code, "", f"{said}\n")


def test_directories_of_strangers_run_nothing_and_change_nothing(tmp_path: Path) -> None:
    assert plant(tmp_path) == 24
    good = leave_run(tmp_path / "outputs", "00000f", name="mine")
    before = state_of_files(tmp_path)
    paths = [str(path) for path in sorted((tmp_path / "outputs").glob("*/*")) if path != good]
    runs = [path for path in paths if not path.endswith("_sweep")]
    several = [[*runs], [*runs, "all=true"], [*runs, "format=json"]]
    commands = [["compare", *words] for words in (*([path, str(good)] for path in paths), *several)]
    for answer in limited(run_each_in, tmp_path, commands):
        assert answer.code in (0, 2, 3) and answer.err.count("\n") == (answer.code != 0), answer
        assert (answer.out + answer.err).replace("\n", "").isprintable()
    assert state_of_files(tmp_path) == before
