"""What a sweep writes before its first job runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from command import Answer, small_run
from loopwright.experiment.sweep import run_sweep
from loopwright.experiment.sweep.index import Factor, SweepIndex
from loopwright.experiment.sweep.index_file import read_index, write_index
from loopwright.experiment.sweep.prepare import Groups, label_of, own_words, typed_words
from sweeps import index_of

Cli = Callable[..., Answer]
VALUES = st.dictionaries(st.sampled_from("abc"), st.one_of(st.integers(0, 2), st.booleans(), st.none(), st.text("x")))


@pytest.fixture
def prepare(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Return a function that prepares a sweep in ``s`` and runs no job."""

    def write(directory: Path, index: SweepIndex, *_: object, **__: object) -> int:
        write_index(directory, index)
        return 0

    monkeypatch.setattr(run_sweep, "carry_on", write)
    return lambda *words: cli("-m", *small_run("hydra.sweep.dir=s", *words))


@pytest.mark.slow
def test_the_directory_of_each_job_is_complete_before_a_job_runs(prepare: Cli, tmp_path: Path) -> None:
    assert prepare("optimizer=sgd,adam", "seed=4,7", "sweep.max_failures=3", "hydra.verbose=false").code == 0
    index = index_of(tmp_path / "s")
    for number, (optimizer, seed) in enumerate([("sgd", 4), ("sgd", 7), ("adam", 4), ("adam", 7)]):
        directory, job = tmp_path / "s" / str(number), index["jobs"][number]
        assert {path.name for path in directory.iterdir()} == {"config.yaml", "plan.txt", ".hydra"}
        config = yaml.safe_load((directory / "config.yaml").read_text())
        assert "sweep" not in config and "hydra" not in config
        assert (config["seed"], config["optimizer"]["_target_"].rpartition(".")[2].lower()) == (seed, optimizer)
        assert config["device"]["num_threads"] == 1
        overrides = yaml.safe_load((directory / ".hydra" / "overrides.yaml").read_text())
        assert overrides == list(job["overrides"])
        assert {f"optimizer={optimizer}", f"seed={seed}"} < set(overrides)
        assert (job["state"], job["attempts"], job["num_steps"]) == ("pending", [], 4)
    assert not any(word.startswith(("sweep.", "hydra.")) for job in index["jobs"] for word in job["overrides"])
    assert [group["values"] for group in index["groups"]] == [{"optimizer": "sgd"}, {"optimizer": "adam"}]
    assert (index["factors"][0]["values"], index["own_values"]) == (["sgd", "adam"], {"optimizer": "adamw"})
    assert (index["settings"]["max_failures"], index["seeds"], index["cwd"]) == (3, [4, 7], str(tmp_path))
    assert read_index(tmp_path / "s").jobs[3].directory == "3"


@pytest.mark.slow
def test_jobs_that_differ_in_seeds_only_are_one_group(prepare: Cli, tmp_path: Path) -> None:
    assert prepare("seed=0,1").code == 0
    index = index_of(tmp_path / "s")
    assert [(group["values"], group["label"]) for group in index["groups"]] == [({}, "as configured")]
    assert ([job["group"] for job in index["jobs"]], index["factors"]) == ([0, 0], [])


@given(values=st.lists(VALUES, max_size=6))
def test_groups_are_numbered_in_the_order_of_their_first_jobs(values: list[dict[str, object]]) -> None:
    groups = Groups()
    numbers = [groups.number_of(each, str(each)) for each in values]
    first = [numbers.index(number) for number in dict.fromkeys(numbers)]
    assert [group.number for group in groups.all] == list(range(len(first)))
    assert [group.values for group in groups.all] == [values[place] for place in first]
    assert all(groups.all[number].values == each for number, each in zip(numbers, values, strict=True))
    further = Groups(groups.all)
    assert [further.number_of(each, "") for each in reversed(values)] == numbers[::-1]
    assert further.all == groups.all


def test_equal_numbers_of_different_types_are_different_groups() -> None:
    groups = Groups()
    assert [groups.number_of({"a": value}, "") for value in (1, 1.0, True, "1", 1)] == [0, 1, 2, 3, 0]


def test_the_label_of_a_group_has_the_words_of_its_factors() -> None:
    factors = [Factor(key="a.b", values=(1, 2)), Factor(key="c", values=(3, 4))]
    words = ["x=1", "+a.b=2", "seed=3", "++c=4"]
    assert own_words(words, factors) == ["+a.b=2", "++c=4"]
    assert (label_of(words, factors), label_of(words, [])) == ("+a.b=2 ++c=4", "as configured")
    assert typed_words(["hydra.sweep.dir=s", "a=1,2"]) == ("a=1,2",)
