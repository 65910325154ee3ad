"""The jobs of a large sweep are composed once for each group choice, with the results of a composition in full."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from loopwright.errors import SettingError
from loopwright.experiment.compose.composed import Composed
from loopwright.experiment.compose.composer import Composer, composing
from loopwright.experiment.compose.leaf_overrides import LeafComposer, LeafError, is_leaf, sweep_composition
from loopwright.experiment.compose.overrides import parse_overrides

pytestmark = pytest.mark.hydra

NAMING = ("data", "model")
GROUP_WORDS = ("model=cnn", "data=synthetic", "scheduler=warmup_cosine", "checkpoint=none")
WORDS = (
    "optimizer.lr=0.1",
    "optimizer.lr='0.1'",
    "optimizer.lr=1",
    "optimizer.betas=[0.5,0.6]",
    "optimizer.betas=[0.5]",
    "seed=3",
    "seed=null",
    "name=mine",
    "deterministic=true",
    "data.batch_size=${seed}",
    "loop={eval_steps: 2}",
    "loop.eval_steps=3",
    "+optimizer.amsgrad=true",
    "~precision",
    "checkpoint=null",
    "callbacks.learning_rate=null",
    "hydra.run.dir='out/${name}_${seed}'",
)


@pytest.fixture
def composer() -> Iterator[Composer]:
    with composing(None) as composer:
        yield composer


def parts(composed: Composed) -> tuple[object, ...]:
    source = OmegaConf.to_container(composed.source, resolve=False, enum_to_str=True)
    exact = repr((composed.config, composed.references, composed.sweep, source))
    return exact, composed.overrides, composed.interpolations, composed.interpolated, composed.directory


def key(word: str) -> str:
    return word.lstrip("+~").partition("=")[0]


@settings(max_examples=4, deadline=None)
@given(draws=st.data())
def test_a_job_is_equal_to_its_composition_in_full(draws: st.DataObject) -> None:
    """Two jobs with one `LeafComposer`, so that values of the first job cannot show in the second one."""
    groups = draws.draw(st.lists(st.sampled_from(GROUP_WORDS), max_size=2, unique_by=key))
    with composing(None) as composer:
        leaf_composer = LeafComposer(composer, NAMING)
        for _ in range(2):
            words = draws.draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=4, unique_by=key))
            words = [word for word in words if key(word) not in map(key, groups)]
            overrides = draws.draw(st.permutations([*groups, *words]))
            try:
                composed = leaf_composer.compose(overrides)
            except (LeafError, SettingError):
                continue  # then the job is composed in full
            assert parts(composed) == parts(composer.compose(overrides, NAMING))


def test_an_override_that_is_an_interpolation_is_listed_with_the_others(composer: Composer) -> None:
    overrides = ["data.batch_size=${seed}", "seed=3", "optimizer.betas=[0.5,0.6]"]
    composed = LeafComposer(composer, NAMING).compose(overrides)
    assert parts(composed) == parts(composer.compose(overrides, NAMING))


def test_what_only_hydra_can_apply_is_left_to_it(composer: Composer) -> None:
    leaf_composer = LeafComposer(composer)
    for overrides in (
        ["loop={eval_steps: 2}", "loop.eval_steps=3"],
        ["callbacks.learning_rate=null"],
        ["~checkpoint", "checkpoint.keep_last=2"],
        ["model=wrong", "seed=1"],
    ):
        for _ in range(2):
            with pytest.raises((LeafError, SettingError)):
                leaf_composer.compose(overrides)


def test_values_of_one_job_are_not_in_the_next_one(composer: Composer) -> None:
    leaf_composer = LeafComposer(composer)
    hidden = [leaf_composer.compose([f"model.hidden={each}"]).config["model"]["hidden"] for each in ("[1,2]", "3")]
    assert hidden == [[1, 2], 3]
    with pytest.raises(LeafError, match="hiddn"):
        leaf_composer.compose(["model.hidden=[7]", "model.hiddn=1"])
    assert leaf_composer.compose(["seed=4"]).config["model"]["hidden"] == composer.compose([]).config["model"]["hidden"]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("optimizer.lr=0.1", True),
        ("seed=null", True),
        ("model.hidden=[4,[5]]", True),
        ("optimizer={lr: 0.1}", False),
        ("model.hidden=[{a: 1}]", False),
        ("data.path=${name}", False),
        ("data.path=???", False),
        ("+optimizer.lr=0.1", False),
        ("~seed", False),
        ("model=cnn", False),
        ("hydra.verbose=true", False),
    ],
)
def test_single_values_are_recognised(word: str, expected: bool, composer: Composer) -> None:
    (override,) = parse_overrides([word])
    assert is_leaf(override, composer.groups) is expected


def test_a_small_sweep_is_composed_in_full(composer: Composer) -> None:
    in_full = composer.compose
    jobs = [[f"seed={seed}"] for seed in range(3)]
    assert sweep_composition(composer, in_full, jobs, ()) == in_full
    assert sweep_composition(composer, in_full, jobs, (), least_jobs=3) != in_full


def test_a_difference_is_reported_and_all_jobs_are_composed_in_full(
    composer: Composer, capsys: pytest.CaptureFixture[str]
) -> None:
    def other(overrides: object) -> Composed:
        return composer.compose(["seed=8"])

    jobs = [[f"seed={seed}"] for seed in range(3)]
    assert sweep_composition(composer, other, jobs, (), least_jobs=3) is other
    said = capsys.readouterr().err
    assert said.startswith("loopwright: two ways to compose job 0 (seed=0) gave different configurations;")
    assert said.count("\n") == 1 and "report" in said


def test_names_and_directories_with_interpolations_belong_to_each_job(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\nname: x-${seed}\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(text)
    with composing(str(tmp_path)) as composer:
        leaf_composer = LeafComposer(composer, NAMING)
        words = ["experiment=mine", "model=cnn", "hydra.sweep.dir='${name}'"]
        for seed in (1, 2):
            composed = leaf_composer.compose([*words, f"seed={seed}"])
            assert composed.config["name"] == composed.source.name == composed.directory == f"x-{seed}-cnn"
