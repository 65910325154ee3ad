"""Wrong commands and foreign directories of sweeps: one line on the error stream, and nothing is made or changed."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from command import Answer, small_run
from loopwright.errors import CheckpointError
from loopwright.experiment.sweep.index_file import index_text, read_index
from loopwright.experiment.sweep.reconcile import reconciled
from loopwright.experiment.sweep.tables.result_files import csv_text, markdown_text
from loopwright.experiment.sweep.tables.results_table import results_text
from sweeps import as_failed, as_killed, change_index, index_of

Cli = Callable[..., Answer]
LR = "optimizer.lr=0.1,0.01"
SHOW_OPTIONS = "no such option. Available: format, sort, jobs, watch."
KEEPS = "sweep resume cannot change the settings of a job; it accepts only settings of the sweep, such as"

# Words after `loopwright -m`, and the message. The exit code is 2.
SWEEPS = [
    ([LR, "hydra/launcher=joblib"], "hydra/launcher=joblib: Loopwright runs the jobs itself; use "
     "sweep.launcher=process, or sweep.launcher=slurm."),
    ([LR, "hydra/sweeper=optuna"], "hydra/sweeper=optuna: Loopwright runs the jobs itself; use sweep.search=tpe, or "
     "sweep.search=random."),
    ([LR, "hydra.launcher.n_jobs=3"], "hydra.launcher.n_jobs=3: Loopwright runs the jobs itself; use the settings "
     "under sweep, such as sweep.num_parallel=4."),
    ([LR, "sweep.num_parallel=1,2"], "sweep.num_parallel=1,2: settings of the sweep cannot be swept."),
    ([LR, "~sweep.baseline"], "~sweep.baseline: a setting of the sweep cannot be removed; set a value instead."),
    ([LR, "hydra.sweep.subdir=x"], "hydra.sweep.subdir=x: refused; the directories of the jobs are numbered."),
    ([LR, "sweep.nun_parallel=3"], "sweep.nun_parallel=3: no such key. Did you mean sweep.num_parallel?"),
    ([LR, "sweep.num_parallel=0"], "sweep.num_parallel=0: expected a whole number, 1 or more."),
    ([LR, "seed=1,a"], "seed='1,a': expected whole numbers, 0 or more, such as seed=0,1,2."),
    (["optimizer.lr=interval(0.1,0.2)"], "optimizer.lr=interval(0.1,0.2): a grid needs a list of values, such as "
     "optimizer.lr=0.1,0.2; to search the interval, use sweep.search=random or tpe."),
    (["loop.max_steps=range(3,3)"], "--multirun: the sweep has no jobs, because one of its ranges is empty."),
    (["sweep.search=random", "sweep.num_proposals=3"], "sweep.search=random: expected at least one swept setting."),
    ([LR, "max_restarts=2"], "max_restarts=2: expected 0 with -m; the runs of a sweep are not restarted."),
    ([LR, "sweep.launcher=process", "sweep.devices=[0]"], "sweep.devices=[0]: expected auto with jobs on cpu."),
    (["optimizer.lr=0.1,-1"], "optimizer: Invalid learning rate: -1 (job 1: optimizer.lr=-1)"),
    (["objective=val/loss,val/error", "objective_mode=min"], "objective: the jobs have different "
     "objectives, val/loss (min) and val/error (min); give one for all jobs."),
]  # fmt: skip

# Words after `loopwright sweep`, with `s` for a sweep of which all jobs are done; the exit code, and the message.
COMMANDS = [
    ("", 2, "sweep: expected one of show, resume, retry, add, stop, and a sweep, such as loopwright sweep show "
     "last; to run a sweep, use loopwright -m with values separated by commas, such as loopwright -m "
     "optimizer.lr=0.001,0.01."),
    ("shw s", 2, "sweep shw: expected one of show, resume, retry, add, stop. Did you mean show?"),
    ("show", 2, "sweep show: expected a sweep; use loopwright sweep show DIR."),
    ("show nowhere", 3, "nowhere: no such folder; expected a sweep."),
    ("show last", 3, "last: no sweep in outputs/; expected the directory of a sweep."),
    ("show 1a2b3c", 3, "1a2b3c: no such path, and no sweep in outputs/ has these digits in its name."),
    ("show s/0", 3, "s/0: a run; expected the directory of a sweep."),
    ("show s/0/config.yaml", 3, "s/0/config.yaml: a file; expected a sweep."),
    ("show s/0/checkpoints", 3, "s/0/checkpoints: no sweep.json in it; expected the directory of a sweep."),
    ("show s foo=1", 2, f"foo=1: {SHOW_OPTIONS}"),
    ("show s sweep.num_parallel=2", 2, f"sweep.num_parallel=2: {SHOW_OPTIONS}"),
    ("show s format=xml", 2, "format='xml': expected text, json, csv or md."),
    ("show s watch=maybe", 2, "watch='maybe': expected true or false."),
    ("show s jobs=4", 2, "jobs=4: expected numbers from 0 to 3."),
    ("show s jobs=2-1", 2, "jobs=2-1: expected numbers from 0 to 3."),
    ("show s jobs=failed", 2, "jobs=failed: expected numbers such as 3,7-9, or a state of the jobs: done."),
    ("show s format=csv jobs=1", 2, "format=csv: contains all jobs in their order; use it without sort and jobs."),
    ("resume s optimizer.lr=1", 2, f"optimizer.lr=1: {KEEPS} sweep.num_parallel=2. For further values, use sweep add."),
    ("resume s sweep.num_parallel=a", 2, "sweep.num_parallel='a': expected a whole number, 1 or more."),
    ("resume s sweep.num_parallel=1,2", 2, "sweep.num_parallel=1,2: expected one value."),
    ("resume s sweep.search=random sweep.num_proposals=3", 2, "sweep.search=random: a sweep keeps its search; start a "
     "new sweep."),
    ("retry s sweep.max_failures=-1", 2, "sweep.max_failures=-1: expected a whole number, 0 or more."),
    ("retry s jobs=1", 2, "jobs=1: this job is done; sweep retry runs failed jobs."),
    ("add s", 2, "sweep add: expected further values, such as seed=3,4 or optimizer.lr=0.01."),
    ("add s seed=0,1", 2, "seed=0,1: the sweep has these jobs already; nothing is added."),
    ("add s optimizer.lr=0.1", 2, "optimizer.lr=0.1: the sweep has these jobs already; nothing is added."),
    ("add s optimizer.lr=0.5,", 2, "optimizer.lr=0.5,: cannot be read (mismatched input '<EOF>' expecting {':', "
     "BRACKET_OPEN, BRACE_OPEN, FLOAT, INT, BOOL, NULL, UNQUOTED_CHAR, ID, ESC, WS, QUOTED_VALUE, INTERPOLATION}); use "
     "'optimizer.lr=\"0.5,\"'."),
    ("stop s seed=1", 2, "seed=1: expected no override, or jobs=3,7."),
    ("stop s jobs=7", 2, "jobs=7: expected numbers from 0 to 3."),
    ("job s", 2, "sweep job: expected the number of a job, such as loopwright sweep job DIR 3."),
    ("job s x", 2, "sweep job: expected the number of a job, such as loopwright sweep job DIR 3."),
    ("job s 4", 2, "jobs=4: expected a number below 4."),
]  # fmt: skip


def check_refused(root: Path, answer: Answer, code: int, line: str, before: set[Path]) -> None:
    assert (answer.code, answer.out, answer.err) == (code, "", f"{line}\n")
    assert {path for path in root.rglob("*") if path.name != ".lock"} == before


def files_in(root: Path) -> set[Path]:
    return {path for path in root.rglob("*") if path.name != ".lock"}


@pytest.mark.parametrize(("words", "line"), SWEEPS, ids=[" ".join(words) for words, _ in SWEEPS])
def test_a_wrong_sweep_is_refused_before_anything_is_made(
    cli: Cli, tmp_path: Path, words: list[str], line: str
) -> None:
    check_refused(tmp_path, cli("-m", *small_run(*words)), 2, line, set())


@pytest.mark.parametrize(("command", "code", "line"), COMMANDS, ids=[command for command, _, _ in COMMANDS])
def test_a_wrong_command_changes_nothing(
    cli: Cli, swept: Path, tmp_path: Path, command: str, code: int, line: str
) -> None:
    before = files_in(tmp_path)
    check_refused(tmp_path, cli("--trust=told", "sweep", *command.split()), code, line, before)


def test_settings_of_a_sweep_have_no_effect_without_m(cli: Cli, tmp_path: Path) -> None:
    line = "sweep.num_parallel: has an effect only with -m."
    check_refused(tmp_path, cli(*small_run("sweep.num_parallel=4")), 2, line, set())


@pytest.mark.parametrize("values", ["0.001,1e-3", "0.1,0.1"])
def test_two_equal_jobs_are_refused_with_their_numbers(cli: Cli, tmp_path: Path, values: str) -> None:
    answer = cli("-m", *small_run(f"optimizer.lr={values}"))
    assert (answer.code, answer.out, list(tmp_path.iterdir())) == (2, "", [])
    assert answer.err.startswith("jobs 0 and 1 have the same configuration: optimizer.lr=")
    assert answer.err.endswith("; give each value once.\n") and answer.err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "holds this sweep, 3 of 4 done; loopwright sweep resume --trust=told s"),
        (["seed=0,1,2"], "holds a sweep with 4 of these 6 jobs; loopwright sweep add --trust=told s seed=2"),
        (["seed=0,2"], "holds another sweep; name a new directory"),
    ],
)
def test_a_directory_that_holds_a_sweep_is_refused(
    sweep: Cli, swept: Path, tmp_path: Path, words: list[str], problem: str
) -> None:
    as_killed(swept, 3)
    before = files_in(tmp_path)
    check_refused(tmp_path, sweep(*words), 2, f"hydra.sweep.dir='s': {problem}.", before)


def test_a_sweep_is_not_a_run(cli: Cli, swept: Path, tmp_path: Path) -> None:
    before = files_in(tmp_path)
    resume = "s: contains a sweep; to run the jobs that are left, use loopwright sweep resume --trust=told s."
    check_refused(tmp_path, cli("--trust=told", "resume", "s"), 3, resume, before)
    for verb in ("validate", "predict", "export", "reproduce"):
        line = "s: contains a sweep; expected the directory of a job, such as s/0."
        check_refused(tmp_path, cli(verb, "s"), 3, line, before)


def test_a_sweep_starts_its_own_processes(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": "4", "RANK": "1", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", "1234")
    line = "-m: a sweep starts its own processes; use device.num_processes=4 in each job, without WORLD_SIZE."
    check_refused(tmp_path, cli("-m", *small_run(LR)), 2, line, set())


def test_a_changed_configuration_is_not_run(cli: Cli, swept: Path, tmp_path: Path) -> None:
    as_killed(swept, 2)
    (swept / "2" / "config.yaml").write_text((swept / "2" / "config.yaml").read_text().replace("seed: 0", "seed: 5"))
    before = files_in(tmp_path)
    line = "s/2/config.yaml: was changed after the sweep began; restore it, or start a new sweep."
    check_refused(tmp_path, cli("--trust=told", "sweep", "resume", "s"), 3, line, before)
    check_refused(tmp_path, cli("--trust=told", "sweep", "job", "s", "2"), 3, line, before)


def test_the_trust_in_an_index_has_no_effect(cli: Cli, swept: Path) -> None:
    as_failed(swept, 1)
    before = (swept / "sweep.json").read_bytes()
    for verb in (("retry",), ("resume",), ("add", "seed=7")):
        answer = cli("sweep", verb[0], "s", *verb[1:])
        problem = "the sweep was started with --trust=told; add --trust=told only if you trust its code"
        assert (answer.code, answer.out, answer.err) == (2, "", f"--trust: {problem}.\n")
    assert (swept / "sweep.json").read_bytes() == before


def damage(index: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    node: Any = index
    for name in parents:
        node = node[int(name) if name.isdigit() else name]
    node[int(last) if last.isdigit() else last] = value


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("schema", 2, "of schema 2; expected schema 1"),
        ("schema", "\x1b[2J", "of schema \\x1b[2J; expected schema 1"),
        ("schema", None, "of an older version; expected schema 1"),
        ("jobs.1.directory", "../../x", "damaged (ValueError: job 1: expected the directory 1)"),
        ("jobs.1.directory", "/etc", "damaged (ValueError: job 1: expected the directory 1)"),
        ("jobs.1.number", 0, "damaged (ValueError: jobs: expected the numbers 0, 1, 2, …)"),
        ("jobs.1.state", "over", "damaged (ValueError: job 1: unknown state)"),
        ("jobs.1.group", 2, "damaged (ValueError: job 1: no such group)"),
        ("jobs.1.seconds", "long", "damaged (TypeError: jobs[1].seconds: wrong type)"),
        ("jobs.1.attempts.0.host", ["a"], "damaged (TypeError: jobs[1].attempts[0].host: wrong type)"),
        ("jobs.1.metrics", {"a": "b"}, "damaged (KeyError: 'b')"),
        ("groups.0.number", 1, "damaged (ValueError: groups: expected the numbers 0, 1, 2, …)"),
        ("best.group", 9, "damaged (ValueError: best: no such group)"),
        ("settings.columns", 3, "damaged (SettingError: sweep.columns=3: expected a list of words.)"),
        ("objective.mode", "up", "damaged (ValueError: unknown state or mode)"),
    ],
)
def test_a_foreign_index_is_refused(cli: Cli, swept: Path, path: str, value: Any, problem: str) -> None:
    change_index(swept, lambda index: damage(index, path, value))
    for verb in ("show", "resume"):
        answer = cli("sweep", verb, "s")
        assert (answer.code, answer.out) == (3, "")
        line = f"s/sweep.json: {problem}" + ("" if "schema" in problem else "; expected the index of a sweep") + "."
        assert answer.err.replace("SettingTypeError", "SettingError") == f"{line}\n"


def test_an_index_that_is_no_regular_file_is_refused(cli: Cli, swept: Path, tmp_path: Path) -> None:
    file, text = swept / "sweep.json", (swept / "sweep.json").read_text()

    def refusal() -> str:
        answer = cli("sweep", "show", "s")
        assert (answer.code, answer.out, answer.err.count("\n")) == (3, "", 1)
        return answer.err

    for content in ("", text[:-9], "[1, 2]", "[" * 100_000, "\0", '{"schema": 1}'):
        file.write_text(content)
        assert refusal().startswith("s/sweep.json: ")
    file.unlink()
    assert refusal() == "s: no sweep.json in it; expected the directory of a sweep.\n"
    (tmp_path / "elsewhere.json").write_text(text)
    file.symlink_to(tmp_path / "elsewhere.json")
    assert "link" in refusal().lower()
    file.unlink()
    os.mkfifo(file)
    assert refusal().startswith("s/sweep.json: ")
    file.unlink()
    with file.open("wb") as huge:
        huge.truncate(1 << 40)
    assert refusal().startswith("s/sweep.json: ")


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([-1, 3, 10**400, 1e308, "x", "NaN", "\x1b[2J", "2026-11-30T10:00:00", [], [[]], {}, {"a": [1]}]),
)


def test_names_with_control_characters_are_escaped(straight: Path, tmp_path: Path) -> None:
    index = copy.deepcopy(index_of(straight))
    index["objective"]["name"] = "\x1b[2J"
    (tmp_path / "sweep.json").write_text(json.dumps(index))
    found = read_index(tmp_path)
    text = results_text(found, "s", width=80) + csv_text(found) + markdown_text(found, "s")
    assert "\x1b" not in text and "x1b[2J" in text


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_is_refused_or_shown(straight: Path, tmp_path: Path, data: st.DataObject) -> None:
    index = copy.deepcopy(index_of(straight))
    node: Any = index
    while True:
        key = data.draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
        if not isinstance(node[key], dict | list) or not node[key] or data.draw(st.integers(0, 3)) == 0:
            break
        node = node[key]
    node[key] = data.draw(LEAVES)
    (tmp_path / "sweep.json").write_text(json.dumps(index))
    try:
        found = reconciled(tmp_path, read_index(tmp_path))
    except CheckpointError as error:
        assert str(error).isprintable() and len(str(error)) < 500  # noqa: PT017
        return
    text = results_text(found, "s", width=80) + csv_text(found) + markdown_text(found, "s") + index_text(found)
    assert "\x1b" not in text
