"""A command that is printed does what its label says."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from command import Answer, small_run

Cli = Callable[..., Answer]

LONGER = "rain it for longer: "
LENGTHS = [
    "loop.max_steps=4",
    "loop.num_steps=3",
    "loop.num_epochs=1",
    "loop.max_steps=4 loop.num_epochs=1",  # ended by max_steps
    "loop.max_steps=9 loop.num_epochs=1",  # ended by num_epochs
    "loop.max_steps=6 loop.num_epochs=1",  # ended by both
    "loop.num_steps=3 loop.max_steps=2",
    "loop.num_epochs=2 loop.steps_per_epoch=2",
    "loop.num_epochs=1 loop.grad_accum_steps=4",
]


def words_of(text: str, label: str) -> list[str]:
    """Return the words after ``loopwright`` of the command that ends a line with this label."""
    (line,) = [each for each in text.splitlines() if label in each]
    program, *words = shlex.split(line.partition(label)[2])
    assert program == "loopwright"
    return words


def step_of(directory: str) -> int:
    step = json.loads((Path(directory) / "summary.json").read_text())["global_step"]
    assert isinstance(step, int)
    return step


@pytest.mark.slow
@pytest.mark.parametrize("lengths", LENGTHS)
def test_train_it_for_longer_trains_further_steps(lengths: str, cli: Cli) -> None:
    typed = ["hydra.run.dir=run", *lengths.split()]
    common = [word for word in small_run(*typed) if word in typed or not word.startswith("loop.max_steps=")]
    first = cli(*common)
    assert first.code == 0, first.err
    ended = step_of("run")
    second = cli(*words_of(first.out, LONGER))
    assert second.code == 0, second.err
    assert step_of("run") >= 2 * ended
    told = cli("resume", "run")
    assert told.out.startswith(f"run: completed at global_step {step_of('run')}; nothing is left to do. ")
    assert words_of(told.out, LONGER) == words_of(second.out, LONGER)
    assert cli(*words_of(told.out, LONGER)).code == 0
    assert step_of("run") >= 4 * ended


@pytest.mark.slow
def test_a_loop_file_of_the_user_without_max_steps_can_be_extended(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "conf" / "loop").mkdir(parents=True)
    (tmp_path / "conf" / "loop" / "epochs.yaml").write_text(
        "_target_: loopwright.loop.TrainingLoop\nnum_epochs: 1\neval_frequency: 2\n"
    )
    common = [word for word in small_run("loop=epochs", "hydra.run.dir=run") if not word.startswith("loop.")]
    first = cli("--config-dir=conf", *common)
    assert first.code == 0, first.err
    assert cli(*words_of(first.out, LONGER)).code == 0
    assert step_of("run") == 12
    refused = cli("resume", "run", "seed=3")
    assert refused.code == 2 and refused.err.endswith("; to train for longer, use loop.num_epochs=N.\n")


def test_a_stopped_run_is_not_said_to_train_for_longer(small: Cli, cli: Cli) -> None:
    stopping = ["callbacks=[default,early_stopping]", "callbacks.early_stopping.min_delta=100"]
    words = [*stopping, "callbacks.early_stopping.patience=1", "loop.eval_frequency=1", "loop.max_steps=20"]
    first = small("hydra.run.dir=run", *words)
    assert first.code == 0, first.err
    assert LONGER not in first.out and step_of("run") < 20
    assert LONGER not in cli("resume", "run").out


def test_a_run_without_checkpoints_is_not_said_to_train_for_longer(cli: Cli) -> None:
    words = [word for word in small_run("~checkpoint", "hydra.run.dir=run") if not word.startswith("checkpoint.")]
    assert cli(*words).code == 0
    assert LONGER not in cli("resume", "run").out


@pytest.mark.parametrize("word", ["model=cnn", "loop={max_steps: 2}", "callbacks=[default,ema]"])
def test_the_command_that_starts_a_new_run_starts_it(word: str, recorded: Path, cli: Cli) -> None:
    refused = cli("resume", "run", word)
    assert refused.code == 2
    words = words_of(refused.err.rstrip("\n"), "start a new run with: ")
    assert cli("plan", *words).code == 0


@pytest.mark.parametrize("word", ["model=mine", "optimizer=null", "callbacks=[default,mine]"])
def test_a_command_that_needs_more_words_is_not_printed(word: str, recorded: Path, cli: Cli) -> None:
    refused = cli("resume", "run", word)
    assert refused.code == 2 and refused.err.endswith(", or start a new run\n")


def test_the_command_for_predictions_writes_them(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "my houses.csv").write_text("area,price\n" + "".join(f"{row},{2 * row}\n" for row in range(20)))
    words = ("data=csv", "data.path=my houses.csv", "data.target=price", "model=mlp_regressor", "loop.max_steps=3")
    answer = cli(*words, "hydra.run.dir=run", "loggers=none")
    assert answer.code == 0, answer.err
    assert cli(*words_of(answer.out, "Predict for a new file (change data.path): ")).code == 0
    assert len((tmp_path / "run" / "predictions_3.csv").read_text().splitlines()) == 21


def test_a_run_without_validation_data_is_not_said_to_be_validated(cli: Cli, small: Cli, tmp_path: Path) -> None:
    (tmp_path / "unvalidated.py").write_text(
        "from loopwright.data import Splits, synthetic\n\n"
        "def data():\n    return Splits(synthetic(4, 0, 24, 8).train)\n"
    )
    (tmp_path / "conf" / "data").mkdir(parents=True)
    (tmp_path / "conf" / "data" / "mine.yaml").write_text("_target_: unvalidated.data\n")
    words = ["--config-dir=conf", "--trust=unvalidated", "data=mine", "objective=train/loss", "loop.num_steps=3"]
    answer = cli(*words, "model.hidden=[4]", "hydra.run.dir=run")
    assert answer.code == 0, answer.err
    assert "Validate it: " not in answer.out
    assert cli(*words_of(answer.out, LONGER)).code == 0
    assert step_of("run") == 6
