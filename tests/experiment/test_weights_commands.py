"""``loopwright export DIR`` and ``loopwright import-weights FILE``: files with weights only."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import tiny
from command import Answer
from loopwright.checkpoint import read_checkpoint, resolve
from loopwright.errors import CheckpointError

Cli = Callable[..., Answer]


@pytest.mark.slow
def test_weights_are_exported_and_imported_again(small: Cli, cli: Cli, tmp_path: Path) -> None:
    small("hydra.run.dir=run")
    sha256 = json.loads((tmp_path / "run" / "summary.json").read_text())["weights_sha256"]
    answer = cli("export", "run")
    assert (answer.code, answer.err) == (0, "")
    file = Path("run/step_00000004.safetensors")
    assert f"File: {file} (4 tensors, " in answer.out
    assert f"weights_sha256: {sha256}\n" in answer.out
    assert answer.out.endswith(f"Load it in Python: safetensors.torch.load_file({str(file)!r})\n")
    weights = load_file(file)
    kept = read_checkpoint(resolve("run")).state["model"]
    assert weights.keys() == kept.keys() and all(torch.equal(weights[name], kept[name]) for name in kept)

    torch.save({"state_dict": weights, "epoch": 1}, tmp_path / "foreign.pt")
    answer = cli("import-weights", "foreign.pt")
    assert (answer.code, answer.err) == (0, "")
    assert f"weights_sha256: {sha256}\n" in answer.out
    assert answer.out.endswith("Train from them: loopwright init_from=foreign_weights\n")
    assert small("init_from=foreign_weights", "hydra.run.dir=again").code == 0
    assert small("init_from=run", "hydra.run.dir=same").code == 0
    ours, theirs = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("again", "same"))
    assert ours["weights_sha256"] == theirs["weights_sha256"] != sha256


def test_weights_with_other_strides_are_exported(tmp_path: Path, cli: Cli) -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.register_buffer("turned", torch.arange(6.0).view(2, 3).T)
    with tiny.trainer(model=lambda: model) as ours:
        ours.save_checkpoint(tmp_path / "step_00000000")
    assert cli("export", "step_00000000", "output=out.safetensors").code == 0
    weights = load_file("out.safetensors")
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())


def test_complex128_weights_are_refused(tmp_path: Path, cli: Cli) -> None:
    model = torch.nn.Linear(1, 1)
    model.register_buffer("wide", torch.ones(2, dtype=torch.complex128))
    with tiny.trainer(model=lambda: model) as ours:
        ours.save_checkpoint(tmp_path / "step_00000000")
    answer = cli("export", "step_00000000")
    said = "step_00000000: wide is complex128, which safetensors cannot hold.\n"
    assert (answer.code, answer.err) == (3, said)


def test_averaged_weights_are_exported_if_the_checkpoint_has_them(small: Cli, cli: Cli, tmp_path: Path) -> None:
    average = "callbacks=[default,ema]"
    assert small("hydra.run.dir=run", average).code == 0
    assert cli("export", "run/checkpoints/step_00000002", "weights=averaged", "output=mean.safetensors").code == 0
    state = read_checkpoint(tmp_path / "run" / "checkpoints" / "step_00000002").state
    weights = load_file("mean.safetensors")
    averages = state["callbacks"]["ema"]["averaged_weights"]
    assert weights.keys() == state["model"].keys()
    assert all(torch.equal(weights[name], averages[name]) for name in averages)
    assert not torch.equal(weights["layers.0.weight"], state["model"]["layers.0.weight"])


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["export"], 2, "export: expected a run directory; use loopwright export DIR."),
        (["export", "none"], 3, "none: no such folder; expected a checkpoint or a run directory."),
        (["export", "run", "out=x"], 2, "out=x: no such option. Available: output, weights, ckpt_path."),
        (["export", "run", "output=run/summary.json"], 2, "output='run/summary.json': exists already; name another"),
        (
            ["export", "run", "output=w.pt"],
            2,
            "output='w.pt': expected a name that ends in .safetensors, the format of",
        ),
        (
            ["export", "run/summary.json"],
            3,
            "run/summary.json: a file; expected a checkpoint folder or a run directory.",
        ),
        (["export", "run", "output=none/x"], 2, "output='none/x': cannot be written"),
        (["export", "run", "weights=mean"], 2, "weights='mean': expected trained or averaged."),
        (["export", "run", "weights=averaged"], 3, "run/checkpoints/step_00000004: contains no averaged weights;"),
        (["export", "run", "output=a", "output=b"], 2, "output: given twice; give it once."),
        (["export", "run", "output="], 2, "output=: expected a value."),
        (["-m", "export", "run"], 2, "--multirun: cannot be used with export."),
        (["import-weights"], 2, "import-weights: expected a file; use loopwright import-weights FILE."),
        (["import-weights", "none.pt"], 3, "none.pt: no such file; expected a file that torch.save wrote."),
        (["import-weights", "run"], 3, "run: a folder; expected a file that torch.save wrote."),
        (["resume", "none"], 3, "none: no such folder; expected a run directory."),
        (["resume", "run/summary.json"], 3, "run/summary.json: a file; expected a run directory."),
        (
            ["validate", "run/checkpoints"],
            3,
            "run/checkpoints: expected a run directory with a regular file config.yaml.",
        ),
        (["import-weights", "run/summary.json"], 3, "run/summary.json: expected a file that torch.save wrote"),
        (["import-weights", "x.pt", "output=run"], 2, "output='run': exists already; name another directory."),
    ],
)
def test_mistakes_are_reported_in_one_line(words: list[str], code: int, said: str, recorded: Path, cli: Cli) -> None:
    answer = cli(*words)
    assert answer.code == code
    assert answer.err.startswith(said), answer.err
    assert answer.err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["init_from=w.pt"],
            "init_from='w.pt': a file; expected a checkpoint folder or a run directory. For weights that",
        ),
        (
            ["ckpt_path=w.pt"],
            "ckpt_path='w.pt': a file; expected a checkpoint folder or a run directory. For weights that",
        ),
        (["loop=validation", "ckpt_path=w.pt"], "ckpt_path='w.pt': a file; expected a checkpoint folder or"),
        (["loop=validation", "ckpt_paths=[run,w.pt]"], "ckpt_paths='w.pt': a file; expected a checkpoint folder or"),
        (
            ["init_from=run/checkpoints/step_00000004/model.safetensors"],
            "init_from='run/checkpoints/step_00000004/model.",
        ),
        (
            ["init_from=empty"],
            "empty: contains no checkpoint; expected a checkpoint, a run directory or its checkpoints.",
        ),
        (["loop=validation", "ckpt_path=empty"], "empty: contains no checkpoint;"),
        (["loop=validation", "ckpt_paths=[run,empty]"], "empty: contains no checkpoint;"),
        (
            ["init_from=run", "model.hidden=[5]"],
            "run/checkpoints/step_00000004: the checkpoint does not fit the model: ",
        ),
    ],
)
def test_a_checkpoint_that_cannot_be_used_leaves_no_run_directory(
    words: list[str], said: str, recorded: Path, small: Cli, cli: Cli, tmp_path: Path
) -> None:
    torch.save({"weight": torch.zeros(1)}, tmp_path / "w.pt")
    (tmp_path / "empty").mkdir()
    answer = cli(*words, "model.hidden=[4]") if "loop=validation" in words else small(*words)
    assert (answer.code, answer.err.count("\n")) == (3, 1)
    assert answer.err.startswith(said), answer.err
    assert not (tmp_path / "outputs").exists()


@pytest.mark.slow
def test_a_damaged_checkpoint_of_init_from_leaves_no_run_directory(recorded: Path, small: Cli, tmp_path: Path) -> None:
    file = recorded / "checkpoints" / "step_00000004" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    answer = small("init_from=run/checkpoints/step_00000004")
    assert (answer.code, answer.err.startswith("run/checkpoints/step_00000004: model.safetensors: ")) == (3, True)
    assert not (tmp_path / "outputs").exists()


def test_the_advice_for_a_torch_file_is_the_command_that_converts_it(small: Cli, cli: Cli, tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1)}, tmp_path / "my weights.pt")
    answer = small("init_from='my weights.pt'")
    advice = answer.err.partition(" For weights that torch.save wrote: loopwright ")[2]
    assert cli(*shlex.split(advice)).code == 0
    with tiny.trainer() as ours, pytest.raises(CheckpointError, match=r"loopwright import-weights 'my weights.pt'"):
        ours.fit(tiny.batches(), init_from="my weights.pt")


@pytest.mark.slow
def test_a_new_head_and_the_state_of_the_optimizer_are_recorded_resumed_and_reproduced(
    recorded: Path, small: Cli, cli: Cli, tmp_path: Path
) -> None:
    words = ["init_from=run", "init_strict=false", "init_optimizer=true", "model.num_classes=5", "data.num_classes=5"]
    words.append("scheduler=none")  # a schedule over a later end would have other learning rates
    answer = small(*words, "hydra.run.dir=new")
    assert answer.code == 0
    folder = "run/checkpoints/step_00000004"
    assert answer.err.startswith(f"{folder}: not used: layers.") and answer.err.count("\n") == 1
    assert "; without a state in the optimizer: layers." in answer.err
    summary = json.loads((tmp_path / "new" / "summary.json").read_text())
    assert list(summary["origins"]) == [folder]
    assert small(*words, "loop.max_steps=2", "hydra.run.dir=half").code == 0
    resumed = cli("resume", "half", "loop.max_steps=4")
    assert (resumed.code, "not used" in resumed.err) == (0, False)
    again = json.loads((tmp_path / "half" / "summary.json").read_text())
    assert again["weights_sha256"] == summary["weights_sha256"]
    assert cli("reproduce", "new", "hydra.run.dir=same").code == 0
    assert cli("validate", "new").code == 0
    assert cli("predict", "new").code == 0


def test_recorded_configurations_without_the_settings_of_a_start_are_resumed(recorded: Path, cli: Cli) -> None:
    """An older version did not record ``init_strict`` and ``init_optimizer``."""
    file = recorded / "config.yaml"
    lines = [line for line in file.read_text().splitlines() if not line.startswith(("init_strict", "init_optimizer"))]
    older = "\n".join(lines) + "\n"
    file.write_text(older)
    assert cli("resume", "run", "loop.max_steps=5").code == 0
    assert file.read_text() == older.replace("max_steps: 4", "max_steps: 5")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["init_optimizer=true", "optimizer=sgd"], "the optimizer was AdamW, and is SGD in this run; leave out init_"),
        (["init_optimizer=true", "init_from=foreign"], "contains no state of an optimizer; leave out init_optimizer"),
        (["model.hidden=[5]"], "the checkpoint does not fit the model: "),
        (["model.hidden=[5,6]", "init_strict=false"], "no weight in the checkpoint fits the model: missing "),
    ],
)
def test_a_start_that_does_not_fit_leaves_no_run_directory(
    words: list[str], said: str, recorded: Path, small: Cli, cli: Cli, tmp_path: Path
) -> None:
    torch.save(read_checkpoint(resolve("run")).state["model"], tmp_path / "w.pt")
    assert cli("import-weights", "w.pt", "output=foreign").code == 0
    answer = small(*words, *([] if "init_from=foreign" in words else ["init_from=run"]))
    assert (answer.code, answer.err.count("\n"), said in answer.err) == (3, 1, True), answer.err
    assert not (tmp_path / "outputs").exists()


@pytest.mark.slow
def test_the_first_line_names_the_checkpoint_and_why(small: Cli, cli: Cli) -> None:
    assert small("hydra.run.dir=run").code == 0
    newest = "run/checkpoints/step_00000004"
    for start, line in (
        ("run", f"{newest} (newest checkpoint)"),
        ("run/best", f"{newest} (best val/loss "),
        ("run/checkpoints/step_00000002", "run/checkpoints/step_00000002 (as given)"),
    ):
        assert small(f"init_from={start}").out.startswith(f"Initial weights: {line}")
    assert cli("resume", "run", "loop.max_steps=5").out.startswith(f"Resumes from: {newest} (newest checkpoint)\n")
