"""`verify ranks` finds what makes several processes train differently from one, and accepts correct configurations.

The processes are forked, except in the last tests, which start them as a user would.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from command import Answer, environment, run_dirs
from loopwright.experiment.verify import ranks
from loopwright.experiment.verify.rank_side import record
from loopwright.experiment.verify.trials import Trials
from ranked import on_ranks

Cli = Callable[..., Answer]

WORDS = ("--trust=planted", "--config-dir=conf", "model=planted", "data=planted", "loop.eval_frequency=4")


@pytest.fixture
def check(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Return a function that runs ``verify ranks`` on a correct configuration, changed by its words."""
    for name, value in environment().items():  # the processes import from the paths of this process
        monkeypatch.setenv(name, value)
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "data").mkdir()
    (tmp_path / "conf" / "model" / "planted.yaml").write_text("_target_: planted.Model\nmistake: none\n")
    data = "_target_: planted.data\nmistake: none\nbatch_size: 4\nnum_workers: 0\nhas_val: true\n"
    (tmp_path / "conf" / "data" / "planted.yaml").write_text(data)
    return lambda *words: cli("verify", "ranks", *WORDS, *words)


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fork the processes from this process, which takes milliseconds."""

    def act(rank: int, trials: Trials, folder: Path) -> None:
        record(trials, folder, rank)

    def start(trials: Trials, folder: Path) -> None:
        on_ranks(trials.job.config["device"]["num_processes"], act, trials, folder)

    monkeypatch.setattr(ranks, "start_ranks", start)


@pytest.mark.slow
@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize(
    "words",
    [
        "",
        "device.num_processes=3 loop.grad_accum_steps=2 loop.num_steps=5",
        "loop.grad_accum_steps=4 loop.num_steps=7",  # the third window of a pass has two micro-batches
        "data.batch_size=3 device.num_processes=3 data.has_val=false",
        "data.mistake=texts",
        "model.mistake=autocast",
        "model.mistake=not_a_number callbacks=none",
        "model.mistake=counted optimizer=sgd",
        "loop.num_steps=1",
    ],
)
def test_correct_configurations_are_equal(words: str, check: Cli) -> None:
    answer = check(*words.split())
    assert (answer.code, answer.err) == (0, ""), answer.out
    did, said, *_ = answer.out.splitlines()
    assert " in 1 process; in " in did and said.startswith("equal to rounding: 4 gradients and ")


# For each mistake: the changed words, the first difference that is reported, and the explanation.
FOUND = {
    "a loss that is a sum": ("model.mistake=sum", "step 1, gradient layers.", "the loss may be a sum over samples"),
    "batch norm": (
        "model.mistake=batch_norm data.batch_size=8",
        "step 1, gradient layers.",
        "layers.1 (BatchNorm1d): batch statistics, computed from the rows of one process; use GroupNorm",
    ),
    "batch statistics without a module": (
        "model.mistake=batch_statistics data.batch_size=8 data.has_val=false",
        "step 1, gradient layers.",
        "torch.nn.functional.batch_norm: batch statistics",
    ),
    "noise in the model": ("model.mistake=noise", "step 1, gradient layers.", "the model draws new random numbers"),
    "a generator of the model": (
        "model.mistake=generator",
        "step 1, gradient layers.",
        "model has its own random generator (generator)",
    ),
    "a buffer that each forward changes": (
        "model.mistake=running",
        "step 1, gradient layers.",
        "mean: changed by the model in each forward, from the rows of one process",
    ),
    "a wrong number of items": ("model.mistake=items data.batch_size=3", "step 1, gradient layers.", None),
    "a mean over the tokens": (
        "data.mistake=joined model.mistake=tokens",
        "step 1, gradient layers.",
        "also return num_items",
    ),
    "iterable data that all processes read": (
        "data.mistake=iterable",
        "step 1, batch: every process reads all rows",
        "data set Other is iterable: each process reads it",
    ),
    "a dataloader of the user": (
        "data.mistake=whole",
        "step 1, batch: every process reads all rows",
        "Whole is a dataloader of your own: each process reads it",
    ),
    "a generator of the data set": (
        "data.mistake=generator",
        "step 1, batch features: differs by at most ",
        "data set Noisy has its own random generator",
    ),
}


@pytest.mark.slow
@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("mistake", FOUND)
def test_a_mistake_is_found_at_its_first_effect_and_explained(mistake: str, check: Cli) -> None:
    words, first, explanation = FOUND[mistake]
    answer = check(*words.split())
    assert (answer.code, answer.err) == (1, ""), answer.out
    _, said, *explanations = answer.out.splitlines()
    assert said.removeprefix("not equal: ").startswith(first)
    found = [line for line in explanations if explanation is not None and explanation in line]
    assert len(found) == (explanation is not None), answer.out


@pytest.mark.slow
@pytest.mark.usefixtures("forked")
def test_dropout_is_left_out_of_the_comparison(cli: Cli) -> None:
    answer = cli("verify", "ranks", "model.dropout=0.5", "loop.num_steps=2")
    assert answer.code == 0
    assert answer.out.endswith(
        "\n  dropout is switched off in both runs, because each process draws other random numbers\n"
    )


def test_settings_are_checked_before_processes_are_started(check: Cli) -> None:
    answer = check("data.batch_size=1")
    assert answer.code == 2
    assert answer.err == "data.batch_size=1: expected 2 or more, a row for each of 2 processes.\n"


@pytest.mark.slow
def test_another_launcher_is_refused(check: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    answer = check()
    assert (answer.code, answer.err) == (2, "verify ranks: expected one process; start it without torchrun.\n")


@pytest.mark.slow
def test_the_command_starts_the_processes(check: Cli, tmp_path: Path) -> None:
    answer = check("loop.num_steps=3")
    assert (answer.code, answer.err) == (0, ""), answer.out
    assert answer.out.startswith("ranks: 3 steps in 1 process; in 2 processes, which divide each micro-batch\nequal to")
    assert run_dirs(tmp_path) == [] and not (tmp_path / "outputs").exists()


@pytest.mark.slow
def test_an_error_in_a_process_ends_the_command_with_its_line(check: Cli) -> None:
    """A share of one row has no batch statistics."""
    answer = check("model.mistake=batch_norm", "data.batch_size=2")
    assert answer.code == 1
    assert answer.err.startswith("PeerError: rank ") and "Expected more than 1 value per channel" in answer.err
    assert answer.err.count("\n") == 1
