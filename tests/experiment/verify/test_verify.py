"""`verify` finds mistakes of users, names them, and accepts correct configurations."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import torch

from command import Answer, run_dirs
from loopwright.errors import SettingError
from loopwright.experiment.console import command_line
from loopwright.experiment.verify import VERIFIABLE, verify

Cli = Callable[..., Answer]

CONF = {
    "model/planted.yaml": "_target_: planted.Model\nmistake: none\n",
    "data/planted.yaml": "_target_: planted.data\nmistake: none\nbatch_size: 4\nnum_workers: 0\nhas_val: true\n",
    "callbacks/counting.yaml": "counting:\n  _target_: planted.Counting\n",
    "callbacks/clock.yaml": "clock:\n  _target_: planted.Clock\n",
    "callbacks/files.yaml": "files:\n  _target_: planted.Files\n",
}
RIGHT = ("--trust=planted", "--config-dir=conf", "model=planted", "data=planted", "loop.eval_frequency=4")


@pytest.fixture
def check(cli: Cli, tmp_path: Path) -> Cli:
    """Return a function that runs ``verify`` on a correct configuration, changed by its words."""
    for name, text in CONF.items():
        file = tmp_path / "conf" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return lambda what, *words: cli("verify", what, *RIGHT, *words)


@pytest.mark.parametrize("what", [what for what in VERIFIABLE if what != "ranks"])  # see test_ranks.py
def test_a_correct_configuration_is_equal_and_leaves_no_files(what: str, check: Cli, tmp_path: Path) -> None:
    answer = check(what)
    assert (answer.code, answer.err) == (0, "")
    said = answer.out.splitlines()
    assert said[0].startswith((f"{what}: 8 steps", f"{what}: first run: 8 steps"))
    assert said[1].startswith("equal to rounding: 4 gradients" if what == "accumulation" else "bitwise equal: ")
    assert run_dirs(tmp_path) == [] and not (tmp_path / "outputs").exists()


# For each mistake: the command, the first difference that it reports, and the explanation.
FOUND: dict[str, tuple[str, str, str | None]] = {
    "noise of a custom loader": (
        "workers data.mistake=loader",
        "step 1, batch features: differs by at most ",
        "NoisyLoader is a dataloader of your own",
    ),
    "a loss that is a sum": (
        "accumulation model.mistake=sum",
        "step 1, gradient layers.",
        "gradients are 1/2 of the whole batch's gradients: the loss may be a sum",
    ),
    "batch norm with accumulation": (
        "accumulation model.mistake=batch_norm loop.grad_accum_steps=2",
        "step 1, gradient layers.",
        "layers.1 (BatchNorm1d): batch statistics",
    ),
    "a generator of the data set": (
        "resume data.mistake=generator",
        "step 5, batch features: differs by at most ",
        "data set Noisy has its own random generator (_generator, planted._shared)",
    ),
    "an operation without a deterministic implementation": (
        "determinism model.mistake=operation",
        "not deterministic: put_, although these two runs are bitwise equal",
        "put_: torch has no deterministic implementation",
    ),
    "the same generator, read by workers": (
        "workers data.mistake=generator",  # the first worker reads the first batch as the main process would
        "step 2, batch features",
        "data set Noisy has its own random generator (_generator, planted._shared)",
    ),
    "a generator of a module": ("determinism data.mistake=module", "step 1, batch features", "(planted._shared)"),
    "a tensor in a plain attribute": (
        "resume model.mistake=attribute",
        "step 5, loss: differs by at most ",
        "scale: changed in plain attributes",
    ),
    "a generator of the model": (
        "resume model.mistake=generator",
        "step 5, loss",
        "model has its own random generator (generator)",
    ),
    "a buffer that validation changes": (
        "validation model.mistake=evaluation",
        "step 1, weights num_seen: differs by at most 2 ",
        "num_seen: also changed by the model in evaluation mode",
    ),
    "a buffer that validation changes, and training uses": (
        "validation model.mistake=evaluation_used",
        "step 1, weights num_seen: differs by at most 2 ",
        "num_seen: also changed by the model in evaluation mode",
    ),
    "an operation of validations": (
        "determinism model.mistake=evaluation_operation",
        "not deterministic: put_,",
        "put_: torch has no deterministic implementation",
    ),
    "noise in the model": (
        "accumulation model.mistake=noise",
        "step 1, gradient layers.",
        "the model draws new random numbers in the forward of each micro-batch",
    ),
    "noise of NumPy's in the model": (
        "accumulation model.mistake=numpy_noise",
        "step 1, gradient layers.",
        "the model draws new random numbers in the forward of each micro-batch",
    ),
    "batch statistics without a module": (
        "accumulation model.mistake=batch_statistics",
        "step 1, gradient layers.",
        "torch.nn.functional.batch_norm: batch statistics",
    ),
    "a mean over the tokens of a batch, which is weighted by its number of texts": (
        "accumulation data.mistake=joined model.mistake=tokens",
        "step 1, gradient layers.",
        "first tensor has 3, 7, 6 … rows; if the loss is a mean over these rows, also return num_items",
    ),
    "a buffer that each forward changes": (
        "accumulation model.mistake=running",
        "step 1, gradient layers.",
        "mean: changed by the model in the forward of each micro-batch",
    ),
    "a callback with a clock in its state": (
        "determinism callbacks=[default,clock]",
        "step 8, state callbacks.",
        "the state_dict of callbacks is also compared",
    ),
    "iterable data that all workers read": (
        "workers data.mistake=iterable",
        "step 2, batch features",
        "data set Other is iterable: each worker reads all samples",
    ),
    "a clock, with another check": (
        "resume model.mistake=clock",
        "step 1, loss: differs by at most ",
        "two unchanged runs of this configuration also differ",
    ),
    "a clock": ("determinism model.mistake=clock", "step 1, loss: differs by at most ", None),
    "a callback without a state": ("resume callbacks=[default,counting]", "step 6, weights layers.0.weight", None),
    "batches that are not cut": (
        "accumulation data.mistake=whole",
        "step 1, batch features: 7x4 float32 in the first run, 14x4 float32",
        "Whole is a dataloader of your own",
    ),
    "a wrong number of items": (
        "accumulation model.mistake=items data.batch_size=7 loop.grad_accum_steps=3",
        "step 2, gradient",
        None,
    ),
}


@pytest.mark.parametrize("mistake", FOUND)
def test_a_mistake_is_found_at_its_first_effect_and_explained(mistake: str, check: Cli) -> None:
    words, first, explanation = FOUND[mistake]
    answer = check(*words.split())
    assert (answer.code, answer.err) == (1, ""), answer.out
    _, said, *explanations = answer.out.splitlines()
    assert said.removeprefix("not equal: ").startswith(first)
    found = [line for line in explanations if explanation is not None and explanation in line]
    assert len(found) == (explanation is not None), answer.out
    assert all(line.startswith("  may be explained by: ") for line in explanations)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        "validation callbacks=[default,early_stopping]",
        "validation callbacks=[default,early_stopping] callbacks.early_stopping.patience=1 optimizer.lr=1.0",
        "validation scheduler=plateau scheduler.scheduler.patience=0 optimizer.lr=1.0 loop.num_steps=12",
        "resume scheduler=plateau scheduler.scheduler.patience=0 optimizer.lr=1.0 loop.num_steps=12",
        "resume callbacks=[default,files]",
        "workers callbacks=[default,time_limit] callbacks.time_limit.minutes=0.00001",
        "accumulation data.batch_size=3 data.mistake=texts loop.grad_accum_steps=2",
        "accumulation data.mistake=drop_last loop.grad_accum_steps=3",
        "accumulation data.batch_size=1",
        "accumulation data.batch_size=3 model.mistake=none loop.num_steps=3",
        "resume data.mistake=texts",
        "accumulation data.mistake=joined",
        "accumulation data.mistake=joined model.mistake=counted",
        "accumulation model.mistake=autocast",
        "accumulation model.mistake=not_a_number callbacks=none",
    ],
)
def test_unusual_correct_configurations_are_equal(words: str, check: Cli) -> None:
    answer = check(*words.split())
    assert (answer.code, answer.err) == (0, ""), answer.out


@pytest.mark.slow
def test_values_that_are_not_compared_are_reported(check: Cli) -> None:
    said = check("accumulation", "data.mistake=drop_last", "loop.grad_accum_steps=3").out.splitlines()
    assert said[0].startswith("accumulation: 3 steps on whole batches of 12; cut into 3 micro-batches of 4")
    assert said[2:] == [
        "  from step 4 on the two runs read different samples (drop_last), which are not compared",
        "  num_rows, num_tokens, tokens: not compared, because they are not cut by samples "
        "(padded tensors or plain numbers)",
    ]
    answer = check("accumulation", "data.batch_size=2", "model.mistake=batch_norm", "data.has_val=false")
    assert answer.code == 1


@pytest.mark.slow
def test_harmless_mistakes_are_not_reported(check: Cli) -> None:
    """A sum is correct without accumulation, and draws of the loader from the global stream do not affect the run."""
    for words in (
        ["resume", "model.mistake=sum"],
        ["resume", "data.mistake=loader"],
        ["validation", "data.mistake=loader"],
        ["validation", "model.mistake=batch_norm"],
        ["workers", "model.mistake=batch_norm"],
        ["determinism", "data.mistake=generator"],
    ):
        answer = check(*words)
        assert answer.code == 0, answer.out


def test_dropout_is_left_out_of_the_comparison_of_gradients(cli: Cli) -> None:
    answer = cli("verify", "accumulation", "model.dropout=0.5", "loop.num_steps=2")
    assert answer.code == 0
    assert answer.out.startswith("accumulation: 2 steps on whole batches of 32; cut into 2 micro-batches of 16\n")
    assert answer.out.endswith(
        "\n  dropout is switched off in both runs, because it draws new random numbers for each micro-batch\n"
    )


def test_the_command_line_lists_all_checks() -> None:
    assert tuple(VERIFIABLE) == command_line.VERIFIABLE


@pytest.mark.slow
def test_the_given_number_of_steps_is_run(check: Cli) -> None:
    assert check("resume", "loop.max_steps=11").out.startswith(
        "resume: 11 steps without interruption; interrupted after step 5,"
    )
    assert check("workers", "loop.num_steps=3").out.startswith("workers: 3 steps on data read in this process;")


@pytest.mark.slow
def test_steps_across_the_short_end_of_a_pass_are_equal(check: Cli) -> None:
    """With ten micro-batches per pass and four per step, the third and the sixth step have only two."""
    for what in ("resume", "workers"):
        assert check(what, "loop.grad_accum_steps=4", "loop.num_steps=7").code == 0
    assert check("accumulation", "data.batch_size=3", "loop.grad_accum_steps=4", "loop.num_steps=9").code == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "error"),
    [
        ([], "verify: expected one of resume, accumulation, validation, workers, determinism, ranks; for example "),
        (["resum"], "verify resum: expected one of resume, accumulation, validation, workers, determinism, ranks. D"),
        (["resume", "loop.max_steps=1"], "loop: trains 1 step; expected 2 or more, so that the run can be interrupted"),
        (["workers", "data.mistake=whole"], "data.num_workers=0: the training dataloader (Whole) has none; expected a"),
        (["accumulation", "data.batch_size=100"], "loop.grad_accum_steps=2: expected at most 1"),
        (["resume", "debug=overfit"], "callbacks.overfit: trains on one micro-batch; verify needs all training data"),
        (["validation", "data.has_val=false"], "data: has no validation data; verify validation needs them."),
        (["workers", "~data.num_workers"], "~data.num_workers: this name cannot be removed"),
        (["resume", "-m"], "--multirun: cannot be used with verify."),
        (["resume", "optimizer.lr=abc"], "optimizer.lr='abc': expected"),
    ],
)  # fmt: skip
def test_configurations_that_cannot_be_compared_give_exit_code_2(
    words: list[str], error: str, check: Cli, cli: Cli
) -> None:
    answer = check(*words) if words else cli("verify")
    assert answer.code == 2
    assert answer.err.startswith(error) and answer.err.count("\n") == 1


def test_a_validation_loop_cannot_be_compared(cli: Cli) -> None:
    answer = cli("verify", "resume", "loop=validation")
    assert (answer.code, answer.err) == (2, "loop: expected a training loop; verify compares training steps.\n")


def test_verify_from_python_gives_the_same_and_leaves_the_callers_streams() -> None:
    torch.manual_seed(5), random.seed(5), numpy.random.seed(5)
    before = torch.get_rng_state(), random.getstate(), numpy.random.get_state()[1].tolist()
    verdict = verify("resume", ["loop.num_steps=4", "loop.eval_frequency=2"])
    assert verdict.is_equal and verdict.explanations == ()
    assert (
        str(verdict).splitlines()[0]
        == "resume: 4 steps without interruption; interrupted after step 2, rebuilt and resumed"
    )
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), numpy.random.get_state()[1].tolist()) == before[1:]
    assert not torch.are_deterministic_algorithms_enabled()
    with pytest.raises(SettingError, match=r"^what='resum': expected one of resume, "):
        verify("resum")


@pytest.mark.slow
@pytest.mark.parametrize("what", VERIFIABLE)
@pytest.mark.parametrize(
    "experiment",
    ["digits", "csv_example", "vit_digits", "gpt_stdlib", pytest.param("gpt_stdlib_eval", marks=pytest.mark.extras)],
)
def test_the_shipped_experiments_keep_every_promise(experiment: str, what: str, cli: Cli) -> None:
    if experiment == "gpt_stdlib_eval":
        pytest.importorskip("lm_eval")
    answer = cli("verify", what, f"experiment={experiment}")
    assert (answer.code, answer.err) == (0, ""), answer.out
