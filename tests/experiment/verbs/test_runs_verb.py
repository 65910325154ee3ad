"""``loopwright runs`` as users type it: the table, conditions, formats, errors, and directories of strangers."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from command import Answer, run_in, small_run
from left_runs import leave_run, write_run
from limited import limited
from loopwright.run_lock import hold
from planted_runs import plant, state_of_files

Cli = Callable[..., Answer]


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """Four runs, of which ``000003`` is the newest."""
    outputs = tmp_path / "outputs"
    for number, (state, loss, model) in enumerate(
        [("completed", 0.5, "mlp"), ("failed", "NaN", "cnn"), ("running", 0.25, "mlp"), ("interrupted", 0.125, "cnn")]
    ):
        leave_run(
            outputs,
            f"00000{number}",
            name="digits" if number else "mnist",
            day=number + 1,
            state=state,
            objective=loss,
            metrics={"val/loss": loss, "val/accuracy": 1 - number / 10},
            chosen={"model": model},
            config=f"optimizer: {{lr: 0.{number + 1}}}\n",
            changes={"model": ["mlp", model]} if model == "cnn" else {},
            checkpoints=[10] if number == 2 else [],
        )
    return outputs


def ids(answer: Answer) -> list[str]:
    assert (answer.code, answer.err) == (0, ""), answer
    return [row["id"] for row in json.loads(answer.out)]


def test_the_table_has_the_newest_run_first_and_tells_how_to_resume_a_lost_run(cli: Cli, outputs: Path) -> None:
    answer = cli("runs")
    assert (answer.code, answer.err) == (0, "")
    lines = answer.out.splitlines()
    assert lines[0].split() == ["id", "name", "when", "state", "steps", "val/loss", "not", "as", "configured"]
    assert [line.split()[0] for line in lines[1:5]] == ["000003", "000002", "000001", "000000"]
    assert [line.split()[3] for line in lines[1:5]] == ["interrupted", "lost", "failed", "completed"]
    assert lines[1].endswith("model=cnn") and "NaN" in lines[3]
    assert lines[5:] == [
        "000002 is lost (its process has ended). Resume it: loopwright resume outputs/digits/2026-11-03_09-15-05_000002"
    ]
    assert cli("runs", "outputs").out == answer.out
    with hold(outputs / "digits" / "2026-11-03_09-15-05_000002"):
        assert "lost" not in cli("runs").out


def test_a_lost_run_without_a_checkpoint_cannot_be_resumed(cli: Cli, tmp_path: Path) -> None:
    leave_run(tmp_path / "outputs", "000004", state="running")
    assert cli("runs").out.splitlines()[-1] == (
        "000004 is lost (its process has ended), and has no checkpoint to resume from; start it again."
    )


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["state=failed"], ["000001"]),
        (["state=lost"], ["000002"]),
        (["val/loss<0.3"], ["000003", "000002"]),
        (["val/loss=NaN"], ["000001"]),
        (["val/loss!=0.5", "name=digits"], ["000003", "000002", "000001"]),
        (["model=cnn"], ["000003", "000001"]),
        (["optimizer.lr>=0.3"], ["000003", "000002"]),
        (["sort=val/loss"], ["000003", "000002", "000000", "000001"]),
        (["sort=val/accuracy", "limit=2"], ["000000", "000001"]),
        (["sort=-optimizer.lr", "limit=1"], ["000003"]),
        (["started<2026-11-03"], ["000001", "000000"]),
        (["./outputs/mnist"], ["000000"]),
        (["outputs/mnist/2026-11-01_09-15-05_000000"], ["000000"]),
        (["state=stopped"], []),
    ],
)
def test_words_choose_and_sort_runs(words: list[str], found: list[str], cli: Cli, outputs: Path) -> None:
    assert ids(cli("runs", *words, "format=json")) == found


def test_all_formats_have_the_same_fields(cli: Cli, outputs: Path) -> None:
    words = ["runs", "columns=optimizer.lr,val/accuracy", "state=failed"]
    (row,) = json.loads(cli(*words, "format=json").out)
    header, cells = csv.reader(io.StringIO(cli(*words, "format=csv").out))
    first, _, line = cli(*words, "format=md").out.splitlines()
    assert list(row) == header == [name.strip() for name in first.strip("|").split("|")]
    assert row["objective"] == "NaN" == dict(zip(header, cells, strict=True))["objective"]
    assert (row["optimizer.lr"], row["val/accuracy"], row["changes"]) == (0.2, 0.9, {"model": ["mlp", "cnn"]})
    assert line.count("|") == len(header) + 1


@pytest.mark.parametrize(("kind", "out"), [("json", "[]"), ("csv", "id,kind,name,"), ("md", "| id | kind | name |")])
@pytest.mark.parametrize("has_runs", [True, False])
def test_an_empty_list_is_a_document_too(kind: str, out: str, has_runs: bool, cli: Cli, tmp_path: Path) -> None:
    if has_runs:
        leave_run(tmp_path / "outputs", "000000")
    answer = cli("runs", f"format={kind}", "state=failed", *([] if has_runs else ["optimizer.lr=3"]))
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith(out) and (kind != "json" or answer.out == "[]\n")


def test_without_runs_the_text_says_so(cli: Cli, tmp_path: Path) -> None:
    assert cli("runs").out == "No runs in outputs/. To train the default experiment: loopwright\n"
    leave_run(tmp_path / "outputs", "000000")
    assert cli("runs", "state=failed").out == "None of the 1 runs in outputs/ meets these conditions.\n"


def test_the_number_of_runs_is_shown_if_it_is_limited(cli: Cli, outputs: Path) -> None:
    assert cli("runs", "limit=1", "name=digits").out.splitlines()[-1] == "1 of 3 runs; limit=N changes their number."


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["val/los<1"], 2, "val/los: no run has a value with this name; expected a column, a metric, or the path of "),
        (["sort=optimzer.lr"], 2, "sort=optimzer.lr: no run has a value with this name; "),
        (["columns=val/accurac"], 2, "val/accurac: no run has a value with this name; "),
        (["optimizer=3"], 2, "optimizer: is a section; expected one of its settings, such as optimizer.lr."),
        (["limit=x"], 2, "limit='x': expected a whole number, 1 or more."),
        (["limit=0"], 2, "limit=0: expected a whole number, 1 or more."),
        (["format=xml"], 2, "format='xml': expected text, json, csv or md."),
        (["sweeps=no"], 2, "sweeps='no': expected open or closed."),
        (["sort=id", "sort=name"], 2, "sort: given twice; give it once."),
        (["nowhere"], 3, "nowhere: no such folder; expected a folder with runs."),
        (["outputs/digits/file"], 3, "outputs/digits/file: a file; expected a folder with runs."),
    ],
)
def test_errors_are_one_line(words: list[str], code: int, said: str, cli: Cli, outputs: Path) -> None:
    (outputs / "digits" / "file").touch()
    answer = cli("runs", *words)
    assert (answer.code, answer.out, answer.err.count("\n")) == (code, "", 1)
    assert answer.err.startswith(said)


@pytest.mark.slow
def test_the_jobs_of_a_sweep_are_unfolded(cli: Cli, tmp_path: Path) -> None:
    assert cli(*small_run("-m", "optimizer.lr=0.1,0.2")).code == 0
    (sweep,) = json.loads(cli("runs", "format=json").out)
    assert (sweep["kind"], sweep["num_jobs"], sweep["num_done"], sweep["state"]) == ("sweep", 2, 2, "completed")
    jobs = json.loads(cli("runs", "sweeps=open", "format=json", "sort=optimizer.lr").out)
    assert [job["id"] for job in jobs] == [f"{sweep['id']}/0", f"{sweep['id']}/1"]
    assert min(job["objective"] for job in jobs) == sweep["objective"]
    assert ids(cli("runs", "optimizer.lr=0.2", "format=json")) == [sweep["id"]]
    assert ids(cli("runs", "optimizer.lr=0.2", "sweeps=open", "format=json")) == [f"{sweep['id']}/1"]
    assert ids(cli("runs", "optimizer.lr=0.3", "format=json")) == []
    assert "2 of 2 done" in cli("runs").out and "sweep of lr" in cli("runs").out


@pytest.mark.slow
def test_directories_of_strangers_are_lines_and_nothing_runs_or_changes(tmp_path: Path) -> None:
    assert plant(tmp_path) == 24
    before = state_of_files(tmp_path)
    for words in (["sweeps=open"], ["columns=a", "sort=a"], ["optimizer.lr=1"], ["format=json"], ["format=md"]):
        answer = limited(run_in, tmp_path, "runs", *words)
        assert answer.code in (0, 2) and answer.out.replace("\n", "").isprintable(), answer
        assert answer.err.count("\n") <= 1 and answer.err.replace("\n", "").isprintable()
        if words == ["format=json"]:
            rows = json.loads(answer.out)
            assert len(rows) == 24 and sum(row["state"] == "unreadable" for row in rows) >= 14
        if words == ["sweeps=open"]:
            assert " is unreadable: " in answer.out
    for path in sorted((tmp_path / "outputs").glob("*/*")):
        answer = limited(run_in, tmp_path, "show", str(path))
        assert answer.code in (0, 3) and answer.err.count("\n") <= 1, answer
        assert (answer.out + answer.err).replace("\n", "").isprintable()
    assert state_of_files(tmp_path) == before


def test_a_run_typed_by_its_directory(cli: Cli, tmp_path: Path) -> None:
    write_run(tmp_path / "mine")
    (row,) = json.loads(cli("runs", "mine", "format=json").out)
    assert (row["id"], row["name"], row["directory"]) == ("mine", "mine", "mine")
