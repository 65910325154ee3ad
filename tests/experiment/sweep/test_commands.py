"""The commands of a sweep as a user types them: what they write, print and compare."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import told
from command import Answer, small_run
from sweeps import index_of, results_of, states_of

Cli = Callable[..., Answer]
FIELDS = {
    "": "schema id name created loopwright command overrides config_dir trust cwd state objective factors own_values "
    "seeds settings groups best jobs",
    "objective": "name mode",
    "factors": "key values low high is_log is_int",
    "groups": "number values label num_done mean deviation",
    "best": "group overrides mean deviation",
    "jobs": "number group seed overrides directory config_sha256 num_steps num_samples state error objective metrics "
    "best global_step seconds weights_sha256 attempts notes changes",
    "attempts": "started host where ended end exit_code resumed_from",
}


def test_the_index_has_all_fields_and_agrees_with_the_directories(straight: Path) -> None:
    index = index_of(straight)
    nested: dict[str, list[dict[str, Any]]] = {
        "": [index],
        **{name: [index[name]] for name in ("objective", "best")},
        **{name: index[name] for name in ("factors", "groups", "jobs")},
        "attempts": [attempt for job in index["jobs"] for attempt in job["attempts"]],
    }
    for name, entries in nested.items():
        assert entries and all(set(entry) == set(FIELDS[name].split()) for entry in entries), name
    assert (index["schema"], index["state"], index["seeds"]) == (1, "done", [0, 1])
    assert index["command"][:2] == ["loopwright", "-m"] and "hydra.sweep.dir=s" in index["command"]
    assert index["trust"] == ["--trust=told"] and "hydra.sweep.dir=s" not in index["overrides"]
    assert re.fullmatch(r"[0-9a-f]{12}", index["id"]) and re.search(r"[+-]\d\d:\d\d$", index["created"])
    assert [(job["group"], job["seed"], job["state"]) for job in index["jobs"]] == [
        (0, 0, "done"),
        (0, 1, "done"),
        (1, 0, "done"),
        (1, 1, "done"),
    ]
    for job in index["jobs"]:
        directory = straight / job["directory"]
        summary = json.loads((directory / "summary.json").read_text())
        known = ("objective", "metrics", "best", "global_step", "seconds", "weights_sha256")
        assert {name: job[name] for name in known} == {name: summary[name] for name in known}
        assert job["config_sha256"] == hashlib.sha256((directory / "config.yaml").read_bytes()).hexdigest()
        assert (job["num_steps"], [attempt["end"] for attempt in job["attempts"]]) == (6, ["completed"])
        assert f"seed={job['seed']}" in job["overrides"]


def test_equal_seeds_are_pairs_and_groups_have_a_mean(straight: Path) -> None:
    index = index_of(straight)
    objectives = [job["objective"] for job in index["jobs"]]
    for group in index["groups"]:
        first, second = objectives[2 * group["number"] : 2 * group["number"] + 2]
        assert group["mean"] == pytest.approx((first + second) / 2)
        assert group["deviation"] == pytest.approx(abs(first - second) / 2**0.5)
    assert index["best"]["group"] == min((0, 1), key=lambda group: index["groups"][group]["mean"])
    initial = [
        next(float(line["value"]) for line in map(json.loads, text.splitlines()) if line["name"] == "train/loss")
        for text in ((straight / str(number) / "metrics.jsonl").read_text() for number in range(4))
    ]
    assert initial[0] == initial[2] != initial[1] == initial[3]  # before the first update, only the seed matters


def test_a_sweep_prints_its_size_a_line_per_job_the_table_and_the_next_steps(
    straight_sweep: tuple[Path, Answer],
) -> None:
    _, answer = straight_sweep
    lines = answer.out.splitlines()
    size = "Sweep: 4 jobs, 2 values of optimizer.lr × 2 seeds; objective val/loss (min); one at a time, 1 thread each"
    assert lines[:2] == [size, "Directory: s"]
    assert [line.split()[:5] for line in lines[2:6]] == [
        ["job", str(number), f"lr={rate}", f"seed={seed}", "done"]
        for number, (rate, seed) in enumerate([("0.1", 0), ("0.1", 1), ("0.01", 0), ("0.01", 1)])
    ]
    assert re.search(r"^4 of 4 jobs done, in \d:\d\d\. Best: optimizer\.lr=0\.\d+$", answer.out, flags=re.MULTILINE)
    assert "\nRun the best: loopwright --config-dir=conf --trust=told " in answer.out
    assert answer.err == ""


def test_nothing_of_a_job_stays_in_memory(straight: Path) -> None:
    assert len(told.num_alive_models) >= 4
    assert set(told.num_alive_models) == {0}


def test_show_prints_each_format_and_writes_nothing(cli: Cli, straight: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in straight.rglob("*")}
    shown = {kind: cli("sweep", "show", str(straight), f"format={kind}") for kind in ("text", "json", "csv", "md")}
    assert {answer.code for answer in shown.values()} == {0}
    assert json.loads(shown["json"].out) == index_of(straight)
    assert list(csv.DictReader(io.StringIO(shown["csv"].out))) == list(
        csv.DictReader(io.StringIO((straight / "sweep.csv").read_text()))
    )
    assert shown["md"].out.count("\n| ") == 4  # a heading, a rule and two groups
    assert re.search(r"▸ 0\.\d+ +\d.*±", shown["text"].out)
    assert cli("sweep", "show", str(straight)).out == shown["text"].out
    assert before == {path: path.stat().st_mtime_ns for path in straight.rglob("*")}


def test_show_sorts_and_selects(cli: Cli, straight: Path) -> None:
    def rates(*options: str) -> list[str]:
        text = cli("sweep", "show", str(straight), *options).out
        return re.findall(r"^(?:▸| ) (0\.\d+) ", text, flags=re.MULTILINE)

    assert rates("sort=optimizer.lr") == ["0.01", "0.1"]
    assert rates("jobs=2") == rates("jobs=2-3") == ["0.01"]
    assert sorted(rates("jobs=done")) == ["0.01", "0.1"]


def test_last_and_six_digits_name_a_sweep(cli: Cli, straight: Path, tmp_path: Path) -> None:
    for name, time in (("a1b2c3", 2), ("d4e5f6", 1)):
        place = tmp_path / "outputs" / "digits" / f"2026-11-30_10-02-11_{name}_sweep"
        place.mkdir(parents=True)
        index = index_of(straight)
        (place / "sweep.json").write_text(json.dumps({**index, "id": name * 2}))
        for number in range(4):
            shutil.copytree(straight / str(number), place / str(number), ignore=shutil.ignore_patterns("checkpoints"))
        os.utime(place / "sweep.json", (time, time))

    def shown(given: str) -> str:
        found = json.loads(cli("sweep", "show", given, "format=json").out)
        return str(found["id"])

    assert (shown("last"), shown("d4e5f6")) == ("a1b2c3" * 2, "d4e5f6" * 2)


@pytest.mark.slow
def test_added_values_become_jobs_with_further_numbers(cli: Cli, swept: Path) -> None:
    before = index_of(swept)["jobs"]
    answer = cli("--trust=told", "sweep", "add", "s", "optimizer.lr=0.03", "sweep.columns=[val/accuracy]")
    assert (answer.code, answer.err) == (0, "")
    index = index_of(swept)
    assert index["jobs"][:4] == before
    added = [(job["number"], job["group"], job["seed"], job["state"]) for job in index["jobs"][4:]]
    assert added == [(4, 2, 0, "done"), (5, 2, 1, "done")]
    assert [group["values"]["optimizer.lr"] for group in index["groups"]] == [0.1, 0.01, 0.03]
    assert index["settings"]["columns"] == ["val/accuracy"]
    again = cli("--trust=told", "sweep", "add", "s", "seed=0", "optimizer.lr=0.03")
    problem = "seed=0 optimizer.lr=0.03: the sweep has these jobs already; nothing is added.\n"
    assert (again.code, again.err) == (2, problem)


@pytest.mark.slow
def test_added_seeds_join_the_groups(cli: Cli, swept: Path) -> None:
    assert cli("--trust=told", "sweep", "add", "s", "seed=2").code == 0
    index = index_of(swept)
    assert [(job["group"], job["seed"]) for job in index["jobs"][4:]] == [(0, 2), (1, 2)]
    assert ([group["num_done"] for group in index["groups"]], index["seeds"]) == ([3, 3], [0, 1, 2])


@pytest.mark.slow
def test_jobs_are_not_added_after_their_configuration_has_changed(cli: Cli, swept: Path, tmp_path: Path) -> None:
    (tmp_path / "conf" / "callbacks" / "told.yaml").write_text(f"{told.OPTION}  note: new\n")
    before = set(swept.rglob("*"))
    answer = cli("--trust=told", "sweep", "add", "s", "seed=2")
    problem = (
        "the configuration of job 0 has changed since it was begun (callbacks.told.note: not set recorded, 'new' now)"
    )
    assert (answer.code, answer.err) == (2, f"sweep add: {problem}; start a new sweep.\n")
    assert set(swept.rglob("*")) == before


@pytest.mark.slow
def test_a_value_that_all_jobs_had_becomes_a_factor(cli: Cli, swept: Path) -> None:
    assert cli("--trust=told", "sweep", "add", "s", "data.batch_size=6", "optimizer.lr=0.1", "seed=0").code == 0
    index = index_of(swept)
    assert len(index["jobs"]) == 8
    assert [tuple(group["values"].values()) for group in index["groups"]] == [(4, 0.1), (4, 0.01), (6, 0.1), (6, 0.01)]
    assert index["groups"][0]["label"] == "data.batch_size=4 optimizer.lr=0.1"


def test_the_file_of_the_best_group_composes_the_configuration_of_its_jobs(
    cli: Cli, straight: Path, tmp_path: Path
) -> None:
    shutil.copytree(straight.parent / "conf", tmp_path / "conf")
    shutil.copyfile(straight / "best.yaml", tmp_path / "conf" / "experiment" / "best.yaml")
    index = index_of(straight)
    job = next(job for job in index["jobs"] if job["group"] == index["best"]["group"])
    answer = cli("config", "--config-dir=conf", "--trust=told", "experiment=best", f"seed={job['seed']}")
    assert answer.code == 0, answer.err
    recorded = yaml.safe_load((straight / job["directory"] / "config.yaml").read_text())
    assert {**yaml.safe_load(answer.out), "name": recorded["name"]} == recorded


@pytest.mark.slow
@pytest.mark.parametrize("words", [("optimizer.lr=0.1,0.01",), ("optimizer.lr=interval(0.01,0.1)", "seed=0,1")])
def test_a_random_search_that_is_cut_makes_the_same_proposals(cli: Cli, tmp_path: Path, words: tuple[str, ...]) -> None:
    told.write_option(tmp_path)
    search = ("sweep.search=random", "sweep.num_proposals=3", "model.hidden=[4],[5],[6]", *words)
    base = ("--config-dir=conf", "--trust=told", *small_run("callbacks=[default,told]", *search))
    assert cli("-m", *base, "hydra.sweep.dir=straight").code == 0
    (tmp_path / "terminate-1").touch()
    assert cli("-m", *base, "hydra.sweep.dir=cut").code == 143
    assert "interrupted" in states_of(tmp_path / "cut")
    assert cli("--trust=told", "sweep", "resume", "cut").code == 0
    assert results_of(tmp_path / "straight") == results_of(tmp_path / "cut")
    assert len(index_of(tmp_path / "cut")["groups"]) == 3


@pytest.mark.slow
def test_another_program_runs_the_jobs_of_a_sweep_that_was_only_written(
    sweep: Cli, cli: Cli, tmp_path: Path, straight: Path
) -> None:
    words = ("optimizer.lr=0.1,0.01", "seed=0", "sweep.launcher=none")
    answer = sweep(*words)
    expected = "2 jobs were written to s. To run job 0: loopwright --trust=told sweep job s 0\n"
    assert (answer.code, answer.out) == (0, expected)
    assert states_of(tmp_path / "s") == ["pending", "pending"]
    for number in ("0", "1"):
        assert cli("sweep", "job", "--trust=told", "s", number).code == 0
    assert cli("sweep", "resume", "--trust=told", "s").code == 0
    assert states_of(tmp_path / "s") == ["done", "done"]
    assert [row["weights_sha256"] for row in results_of(tmp_path / "s")] == [
        results_of(straight)[number]["weights_sha256"] for number in (0, 2)
    ]
    assert (tmp_path / "s" / "curves.png").exists() and (tmp_path / "s" / "best.yaml").exists()


@pytest.mark.slow
def test_a_sweep_that_was_only_written_needs_a_launcher_to_continue(sweep: Cli, cli: Cli) -> None:
    sweep("sweep.launcher=none")
    answer = cli("sweep", "resume", "--trust=told", "s")
    expected = "sweep.launcher='none': expected a launcher that starts jobs; use sweep.launcher=process.\n"
    assert (answer.code, answer.out, answer.err) == (2, "", expected)


@pytest.mark.slow
def test_the_best_file_of_a_search_contains_the_experiment(cli: Cli, tmp_path: Path) -> None:
    search = ("sweep.search=random", "sweep.num_proposals=2", "optimizer.lr=0.1,0.01", "hydra.sweep.dir=s")
    assert cli("-m", "loop.max_steps=1", "data.num_workers=0", *search).code == 0
    assert "  - digits\n" in (tmp_path / "s" / "best.yaml").read_text()


def test_each_verb_of_a_sweep_prints_the_help(cli: Cli) -> None:
    for words in (("sweep",), ("sweep", "show"), ("sweep", "resume", "s", "sweep.num_parallel=2")):
        answer = cli(*words, "--help")
        assert (answer.code, answer.err) == (0, "") and answer.out.startswith("loopwright sweep WHAT DIR")


@pytest.mark.slow
def test_a_setting_that_no_override_named_becomes_a_factor(cli: Cli, swept: Path) -> None:
    """The jobs that are there have the configuration's value of it, so they form groups of their own."""
    assert cli("--trust=told", "sweep", "add", "s", "loop.eval_steps=1").code == 0
    index = index_of(swept)
    assert [factor["key"] for factor in index["factors"]][-1] == "loop.eval_steps"
    values = [(group["values"].get("loop.eval_steps"), group["num_done"]) for group in index["groups"]]
    assert {number for value, number in values if value is None} == {2} == {number for value, number in values if value}
    assert len({json.dumps(group["values"], sort_keys=True) for group in index["groups"]}) == len(values)
    again = cli("--trust=told", "sweep", "add", "s", "loop.eval_steps=null")
    assert (again.code, again.err) == (2, "loop.eval_steps=null: the sweep has these jobs already; nothing is added.\n")


@pytest.mark.slow
def test_all_jobs_of_a_sweep_have_the_same_number_of_threads(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter([2, 1, 1])
    monkeypatch.setattr("loopwright.experiment.jobs.check.choose_num_threads", lambda *_: next(numbers))
    words = small_run("model.hidden=[4],[5]", "hydra.sweep.dir=s", "loop.max_steps=1")
    assert cli("-m", *words).code == 0
    threads = [yaml.safe_load(Path("s", number, "config.yaml").read_text())["device"]["num_threads"] for number in "01"]
    assert threads == [2, 2]
