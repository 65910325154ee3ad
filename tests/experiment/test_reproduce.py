"""``loopwright reproduce DIR`` lists differences before the run, compares bytes, and does not change DIR."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import loopwright
from command import SMALL, Answer, run_dirs
from loopwright.callbacks import LearningRateMonitor
from photos import write_photos

Cli = Callable[..., Answer]

QUICK = ("loop.max_steps=6", "loop.eval_frequency=3", "log_every_n_steps=2", "loggers=json_lines")
GPT = ("model=gpt", "model.width=16", "model.num_layers=1", "model.num_heads=2", "model.dropout=0.1")
ROWS = ("data=tensor_file", "data.path=rows.safetensors", "model=mlp_regressor", "model.in_features=3")
PHOTOS = (
    "data=image_folder",
    "data.path=photos",
    "data.image_size=8",
    "data.channels=1",
    "data.batch_size=2",
    "model.num_classes=2",
)
TABLE = ("data=csv", "data.path=houses.csv", "data.target=price", "model=mlp_regressor", "model.in_features=1")
UNCHANGED = "The configuration, data and environment recorded in run are unchanged."

EXPERIMENTS = {
    "mlp digits": ("loop.grad_accum_steps=3",),
    "cnn digits": ("model=cnn", "model.dropout=0.3", "data.num_workers=1", "optimizer=sgd"),
    "vit digits": ("model=vit", "model.width=8", "model.num_layers=1", "model.num_heads=1", "scheduler=warmup_cosine"),
    "mlp synthetic": ("data=synthetic", "data.num_train=200", "data.num_val=40", "seed=null", "deterministic=true"),
    "gpt synthetic_tokens": (
        *GPT,
        "data=synthetic_tokens",
        "data.num_train=64",
        "data.num_val=8",
        "data.num_workers=2",
    ),
    "gpt stdlib_text": (*GPT, "data=stdlib_text", "data.window_length=16", "loop.eval_steps=2", "data.num_workers=1"),
    "regressor synthetic_regression": ("data=synthetic_regression", "model=mlp_regressor", "data.num_val=64"),
    "regressor csv": (*TABLE, "model.dropout=0.2", "loop.grad_accum_steps=2", "data.batch_size=3"),
    "mlp image_folder": (*PHOTOS, "data.flip_fraction=0.5", "data.num_workers=2", "loop.grad_accum_steps=2"),
    "regressor tensor_file": (*ROWS, "data.batch_size=4", "data.num_workers=1", "callbacks=[default,ema]"),
    "validation mlp digits": ("loop=validation", "ckpt_path=trained"),
    "validation of many, mlp digits": ("loop=validation", "ckpt_paths=trained/checkpoints/*", "loggers=none"),
}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Write a table, photos and tensors into the directory of the command."""
    generator = torch.Generator().manual_seed(3)
    (tmp_path / "houses.csv").write_text("area,price\n" + "".join(f"{row},{row * row}\n" for row in range(20)))
    write_photos(tmp_path / "photos", size=(8, 8))
    rows = {"features": torch.randn(20, 3, generator=generator), "target": torch.randn(20, generator=generator)}
    save_file(rows, tmp_path / "rows.safetensors")
    return tmp_path


def tree_hash(directory: Path) -> str:
    """Return a hash of the names, types, times and contents of all files in a directory."""
    digest = hashlib.sha256()
    for path in [directory, *sorted(directory.rglob("*"))]:
        stat = path.lstat()
        digest.update(f"{path.relative_to(directory)} {stat.st_mode} {stat.st_mtime_ns} {stat.st_ino}\n".encode())
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def edit(file: Path, **values: Any) -> None:
    """Replace entries of a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def said_before(answer: Answer) -> str:
    """Return the output before the run started."""
    return answer.out.partition("\nDone: ")[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_is_reproduced_bitwise_and_its_directory_is_not_changed(name: str, cli: Cli, files: Path) -> None:
    words = list(EXPERIMENTS[name])
    if "loop=validation" in words:
        assert cli(*QUICK, "checkpoint.every_n_steps=3", "hydra.run.dir=trained").code == 0
        words += ["hydra.run.dir=run"]
    else:
        words += [*QUICK, "hydra.run.dir=run"]
    assert cli(*words).code == 0
    before = tree_hash(files / "run")
    answer = cli("reproduce", "run")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith(f"{UNCHANGED}\n") and "\n  data: " not in answer.out
    verdict = answer.out.splitlines()[-1]
    assert verdict.startswith("Reproduced: ") and verdict.endswith(" and the weights are bitwise equal.")
    assert tree_hash(files / "run") == before
    (again,) = run_dirs(files)
    theirs, ours = (json.loads((each / "summary.json").read_text()) for each in (files / "run", again))
    for key in ("state", "metrics", "rows", "weights_sha256", "data", "global_step"):
        assert ours[key] == theirs[key], key
    if "loggers=none" not in words:
        assert (again / "metrics.jsonl").read_bytes() == (files / "run" / "metrics.jsonl").read_bytes()
    assert (again / "config.yaml").read_bytes() == (files / "run" / "config.yaml").read_bytes()
    assert (again / "command.txt").read_text() == "loopwright reproduce run\n"


@pytest.mark.slow
def test_a_job_of_a_sweep_is_reproduced_in_the_given_directory(small: Cli, cli: Cli, tmp_path: Path) -> None:
    assert small("-m", "optimizer.lr=0.1,0.2", "hydra.sweep.dir=swept").code == 0
    before = tree_hash(tmp_path / "swept")
    answer = cli("reproduce", "swept/1", "hydra.run.dir=again")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.splitlines()[-1] == "Reproduced: 7 metrics up to step 4 and the weights are bitwise equal."
    assert (tmp_path / "again" / "command.txt").read_text() == "loopwright reproduce swept/1 hydra.run.dir=again\n"
    assert run_dirs(tmp_path) == []
    assert tree_hash(tmp_path / "swept") == before


def change_table(root: Path) -> None:
    file = root / "houses.csv"
    file.write_text(file.read_text().replace("3,9\n", "3,8\n"))


def change_tensor(root: Path) -> None:
    with (root / "rows.safetensors").open("r+b") as file:
        file.seek(-30, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-30, os.SEEK_END)
        file.write(bytes([byte ^ 1]))


def change_photo(root: Path) -> None:
    """Change a pixel of an image without changing the name or size of its file."""
    file = root / "photos" / "cat" / "1.bmp"
    data = bytearray(file.read_bytes())
    data[-1] ^= 0xFF
    file.write_bytes(data)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "change", "fact"),
    [
        (TABLE, change_table, "data.sha256"),
        (ROWS, change_tensor, "data.train_content_sha256"),
        (PHOTOS, change_photo, "data.train_content_sha256"),
    ],
)
def test_a_changed_byte_of_data_is_named_before_and_after(
    words: tuple[str, ...], change: Callable[[Path], None], fact: str, cli: Cli, files: Path
) -> None:
    with Image.open(files / "photos" / "cat" / "1.png") as image:
        image.save(files / "photos" / "cat" / "1.bmp")
    assert cli(*words, *QUICK, "hydra.run.dir=run").code == 0
    change(files)
    answer = cli("reproduce", "run")
    assert answer.code == 1
    assert said_before(answer).startswith(f"What differs from run:\n  {fact}: '")
    *_, verdict, why = answer.out.splitlines()
    assert verdict.startswith("Not reproduced: first difference at step ") and verdict.endswith("the weights differ.")
    assert why.startswith(f"Possible causes: {fact}: '")


def test_changed_versions_threads_and_source_are_named(recorded: Path, cli: Cli) -> None:
    there = json.loads((recorded / "environment.json").read_text())
    edit(
        recorded / "environment.json",
        torch="2.11.0",
        packages=there["packages"] | {"numpy": "1.0"},
        variables={"CUBLAS_WORKSPACE_CONFIG": ":16:8", "RANK": "3"},
        git={"commit": "0" * 40, "is_dirty": True},
    )
    (recorded / "git.diff").write_text("+one line\n")
    answer = cli("reproduce", "run")
    assert answer.code == 0  # the results are still equal
    said = said_before(answer).splitlines()
    assert said[0] == "What differs from run:"
    assert f"  torch: '2.11.0' recorded, '{torch.__version__}' now" in said
    assert f"  packages.numpy: '1.0' recorded, '{np.__version__}' now" in said
    assert "  variables.CUBLAS_WORKSPACE_CONFIG: ':16:8' recorded, not set now" in said
    assert f"  git.commit: '{'0' * 40}' recorded, None now" in said
    assert "  uncommitted changes differ: 1 line in the recorded git.diff, none now" in said
    assert not any("RANK" in line for line in said)  # results do not depend on the rank
    (recorded / "metrics.jsonl").write_text("")
    edit(recorded / "summary.json", weights_sha256="0" * 64)
    answer = cli("reproduce", "run")
    assert answer.code == 1
    assert answer.out.splitlines()[-1].startswith("Possible causes: ") and "torch: '2.11.0' recorded" in answer.out


@pytest.mark.slow
def test_the_version_of_an_older_run_is_the_reason_for_other_training_metrics(
    small: Cli, cli: Cli, tmp_path: Path
) -> None:
    """Older versions logged the values of the log step alone, and recorded no version of their own."""
    assert small("hydra.run.dir=run", "log_every_n_steps=2").code == 0
    file, metrics = tmp_path / "run" / "environment.json", tmp_path / "run" / "metrics.jsonl"
    there = json.loads(file.read_text())
    assert there.pop("loopwright") == loopwright.__version__
    file.write_text(json.dumps(there))
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    for line in lines:
        line["value"] += line["name"] == "train/loss"
    metrics.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    answer = cli("reproduce", "run")
    said = (
        f"loopwright: an older version recorded, {loopwright.__version__} now: train/<metric> was the value of the log "
        "step, and is now the mean since the last log step"
    )
    assert (answer.code, said_before(answer)) == (1, f"What differs from run:\n  {said}")
    *_, verdict, why = answer.out.splitlines()
    assert verdict.startswith("Not reproduced: first difference at step 2, train/loss: ")
    assert why == f"Possible causes: {said}."
    assert said_before(cli("reproduce", "run", "log_every_n_steps=1")).count("\n") == 1  # only the override


@pytest.mark.slow
def test_another_choice_of_kernels_is_named(recorded: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    file = recorded / "environment.json"
    there = json.loads(file.read_text())
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")  # torch is already loaded and does not read it again
    said = "What differs from run:\n  variables.ATEN_CPU_CAPABILITY: not set recorded, 'default' now"
    assert said_before(cli("reproduce", "run")) == said
    edit(file, hardware=there["hardware"] | {"cpu_capability": "NONE"})
    assert "  hardware.cpu_capability: 'NONE' recorded, '" in said_before(cli("reproduce", "run"))
    del there["hardware"]["cpu_capability"]  # as older versions recorded it
    there["hardware"]["cpu"] = there["hardware"]["cpu"].partition(", family ")[0]
    edit(file, **there)
    assert said_before(cli("reproduce", "run")) == UNCHANGED


@pytest.mark.slow
def test_changed_source_outside_git_is_named(cli: Cli, small: Cli, tmp_path: Path) -> None:
    module = tmp_path / "unseen_by_git.py"
    module.write_text("from loopwright.models import MLP\n\nclass Mine(MLP):\n    pass\n")
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "mine.yaml").write_text("_target_: unseen_by_git.Mine\nhidden: [4]\n")
    trust = "--trust=unseen_by_git"
    assert small("--config-dir=conf", trust, "model=mine", "hydra.run.dir=run").code == 0
    assert said_before(cli("reproduce", "run", trust)) == UNCHANGED
    module.write_text(module.read_text() + "# other\n")
    said = said_before(cli("reproduce", "run", trust))
    assert said.startswith("What differs from run:\n  source.unseen_by_git: '") and said.count("\n") == 1
    file = tmp_path / "run" / "environment.json"
    edit(file, source=json.loads(file.read_text())["source"] | {"loopwright": "0" * 64})
    assert f"\n  source.loopwright: '{'0' * 64}' recorded, '" in said_before(cli("reproduce", "run", trust))
    there = json.loads(file.read_text())
    del there["source"]  # as older versions recorded it
    file.write_text(json.dumps(there))
    assert said_before(cli("reproduce", "run", trust)) == UNCHANGED


def test_an_edited_configuration_is_reported(recorded: Path, cli: Cli) -> None:
    file = recorded / "config.yaml"
    text = file.read_text()
    assert "\nseed: 0\n" in text
    file.write_text(text.replace("\nseed: 0\n", "\nseed: 1\n"))
    answer = cli("reproduce", "run")
    said = "config.yaml: changed since the run wrote it; the changed file is used"
    assert (answer.code, said_before(answer)) == (1, f"What differs from run:\n  {said}")
    assert answer.out.splitlines()[-1] == f"Possible causes: {said}."


def test_an_override_is_listed_as_a_difference(recorded: Path, cli: Cli) -> None:
    answer = cli("reproduce", "run", "seed=1")
    assert (answer.code, answer.err) == (1, "")
    assert said_before(answer) == "What differs from run:\n  seed: 0 recorded, 1 now"
    *_, verdict, why = answer.out.splitlines()
    assert verdict.startswith("Not reproduced: first difference at step 2, val/loss: ")
    assert " recorded, " in verdict and verdict.endswith("the weights differ.")
    assert why == "Possible causes: seed: 0 recorded, 1 now."


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["loop.max_stepz=30"], "loop.max_stepz=30: no such key. Did you mean loop.max_steps?"),
        (["model=cnn"], "model=cnn: a recorded run keeps its option of model; "),
        (["model.hidden=[a]"], "model.hidden"),
        (["hydra.run.dir=run/again"], "hydra.run.dir='run/again': is inside the run to reproduce; name a new "),
        (["hydra.run.dir=run"], "hydra.run.dir='run': is inside the run to reproduce; name a new "),
        (["hydra.run.dir=a,b"], "hydra.run.dir=a,b: expected one directory; hydra.run.dir=DIR."),
        (["hydra.run.dir="], "hydra.run.dir=: expected one directory; hydra.run.dir=DIR."),
    ],
)
def test_a_wrong_word_is_refused_before_any_file_is_written(
    words: list[str], said: str, recorded: Path, cli: Cli, tmp_path: Path
) -> None:
    before = tree_hash(tmp_path)
    answer = cli("reproduce", "run", *words)
    assert (answer.code, answer.out) == (2, "")
    assert said in answer.err and answer.err.count("\n") == 1
    assert tree_hash(tmp_path) == before


def test_a_run_in_the_folder_of_its_name_is_not_changed(small: Cli, cli: Cli) -> None:
    assert small("hydra.run.dir=outputs/digits-synthetic").code == 0
    answer = cli("reproduce", "outputs/digits-synthetic")
    assert answer.code == 2
    assert answer.err.startswith("hydra.run.dir='outputs/digits-synthetic': is inside the run to reproduce; ")


def test_changed_metrics_are_found(recorded: Path, cli: Cli) -> None:
    file = recorded / "metrics.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    entry = json.loads(lines[2])
    lines[2] = json.dumps(entry | {"value": entry["value"] + 0.25}) + "\n"
    file.write_text("".join(lines))
    answer = cli("reproduce", "run")
    assert answer.code == 1
    *_, verdict, why = answer.out.splitlines()
    assert verdict.startswith(f"Not reproduced: first difference at step {entry['step']}, {entry['name']}: ")
    assert verdict.endswith("now (0.25); 1 of 7 metrics differ; the weights are equal.")
    assert why.startswith("The recorded configuration, data and environment are all unchanged.")


@pytest.mark.parametrize(
    ("alter", "said"),
    [
        (lambda text: text.replace(", ", ","), "the metrics are equal, but their order or format differs"),
        (lambda text: text.rstrip("\n"), "the metrics are equal, but their order or format differs"),
        (lambda text: text + "{half", "recorded, none now"),
        (lambda text: "", None),
        (lambda text: "\n".join(text.splitlines()[1:]) + "\n", "none recorded, "),
        (
            lambda text: "".join(reversed(text.splitlines(keepends=True))),
            "the metrics are equal, but their order or format differs",
        ),
    ],
)
def test_only_equal_bytes_are_called_equal(
    alter: Callable[[str], str], said: str | None, recorded: Path, cli: Cli
) -> None:
    file = recorded / "metrics.jsonl"
    file.write_text(alter(file.read_text()))
    answer = cli("reproduce", "run")
    if said is None:  # the metrics file is empty
        assert "\nNo verdict: the recorded run has no metrics, " in answer.out
        assert answer.out.endswith(
            "; the weights are bitwise equal.\n"
        )  # possible reasons are not listed, because nothing differs
        assert answer.code == 1
        return
    assert answer.code == 1
    assert said in answer.out and "\nNot reproduced: " in answer.out and "\nReproduced" not in answer.out


def test_changed_weights_are_found(recorded: Path, cli: Cli) -> None:
    edit(recorded / "summary.json", weights_sha256="0" * 64)
    answer = cli("reproduce", "run")
    assert answer.code == 1
    assert "\nNot reproduced: 7 metrics up to step 4 are bitwise equal, the weights differ.\n" in answer.out


def test_without_recorded_results_there_is_no_verdict(recorded: Path, cli: Cli) -> None:
    edit(recorded / "summary.json", weights_sha256=None)
    answer = cli("reproduce", "run")
    assert answer.code == 0
    assert answer.out.splitlines()[-1] == (
        "Reproduced: 7 metrics up to step 4 are bitwise equal; no digest of the weights was recorded."
    )
    (recorded / "metrics.jsonl").unlink()
    answer = cli("reproduce", "run")
    assert answer.code == 1
    said = "No verdict: neither metrics nor weights were recorded; there is nothing to compare."
    assert answer.out.splitlines()[-1] == said


def test_data_without_a_hash_are_reported(recorded: Path, cli: Cli) -> None:
    data = json.loads((recorded / "summary.json").read_text())["data"]
    for left_out, said in (("train", "training"), ("val", "validation"), ("", "training and validation")):
        kept = {name: value for name, value in data.items() if not name.startswith(left_out)}
        edit(recorded / "summary.json", data=kept)
        answer = cli("reproduce", "run")
        assert answer.code == 0
        note = f"data: no hash of the {said} data was recorded, because only "
        assert said_before(answer).startswith(f"{UNCHANGED}\n  {note}")
    (recorded / "environment.json").unlink()
    assert said_before(cli("reproduce", "run")).startswith("What differs from run:\n  environment: not recorded\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "part"),
    [(["loop.eval_frequency=null"], "training"), (["loop=validation", "ckpt_path=run", "name=digits"], "validation")],
)
def test_a_missing_hash_is_reported_only_for_used_data(
    words: list[str], part: str, recorded: Path, cli: Cli, tmp_path: Path
) -> None:
    val = "None" if part == "training" else "made.val"
    source = f"def data():\n    made = synthetic(4, 0, 24, 8)\n    return Splits(made.train, {val})\n"
    module = f"data_for_{part}"
    (tmp_path / f"{module}.py").write_text(f"from loopwright.data import Splits, synthetic\n\n{source}")
    (tmp_path / "conf" / "data").mkdir(parents=True)
    (tmp_path / "conf" / "data" / "mine.yaml").write_text(f"_target_: {module}.data\n")
    words = [*words, "model.hidden=[4]", "hydra.run.dir=other", *(["loop.max_steps=2"] if part == "training" else [])]
    answer = cli("--config-dir=conf", f"--trust={module}", "data=mine", *words)
    assert answer.code == 0, answer.err
    edit(tmp_path / "other" / "summary.json", data={})
    said = cli("reproduce", "other", f"--trust={module}").out
    note = f"data: no hash of the {part} data was recorded, because "
    assert said.startswith(f"{UNCHANGED.replace('in run', 'in other')}\n  {note}")


@pytest.mark.slow
def test_a_run_that_ended_early_is_compared_up_to_its_end(
    small: Cli, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(callback: Any, trainer: Any, *_: Any) -> None:
        if trainer.global_step == 7:
            signal.raise_signal(signal.SIGTERM)

    words = ("loop.max_steps=12", "loop.eval_frequency=3", "log_every_n_steps=2", "checkpoint.every_n_steps=5")
    with monkeypatch.context() as patch:
        patch.setattr(LearningRateMonitor, "on_train_batch_end", interrupt)
        assert small("hydra.run.dir=cut", *words).code == 143
    interrupted = tree_hash(tmp_path / "cut")
    monkeypatch.setattr(LearningRateMonitor, "on_train_batch_end", lambda *_: None)
    answer = cli("reproduce", "cut", "hydra.run.dir=straight")
    assert answer.code == 0
    verdict = answer.out.splitlines()[-1]
    assert verdict.startswith("Reproduced: ") and verdict.endswith(
        " up to step 6 are bitwise equal; the recorded run was interrupted at global_step 7, and has no final weights."
    )
    assert json.loads((tmp_path / "straight" / "summary.json").read_text())["global_step"] == 12
    assert tree_hash(tmp_path / "cut") == interrupted
    with monkeypatch.context() as patch:
        patch.setattr(LearningRateMonitor, "on_train_batch_end", interrupt)
        answer = cli("reproduce", "straight")
    assert answer.code == 143
    assert "\nNo verdict: the new run was interrupted at global_step 7. " in answer.out
    assert " up to step 6 are bitwise equal.\n" in answer.out
    edit(tmp_path / "straight" / "summary.json", state="running")  # as if the process was killed while it wrote
    file = tmp_path / "straight" / "metrics.jsonl"
    file.write_bytes(file.read_bytes()[:-9])
    answer = cli("reproduce", "straight")
    assert answer.code == 0
    assert "bitwise equal; the recorded run has not ended, and has no final weights." in answer.out
    assert cli("resume", "cut").code == 0
    answer = cli("reproduce", "cut")
    assert answer.code == 0
    unchanged = UNCHANGED.replace("in run", "in cut")
    assert said_before(answer) == (f"{unchanged}\n  resumed: once; now the run is repeated without interruption")
    assert answer.out.splitlines()[-1].endswith(" and the weights are bitwise equal.")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scheduler", "said"),
    [
        ("plateau", "did not change the learning rate. Metrics logged around step 4 may still differ."),
        ("constant scheduler.warmup_steps=2", "did not change the learning rate. "),
    ],
)
def test_an_extension_with_the_same_learning_rates_is_described_once(
    scheduler: str, said: str, small: Cli, cli: Cli
) -> None:
    assert small("hydra.run.dir=run", *f"scheduler={scheduler}".split()).code == 0
    for words in (["loop.max_steps=6"], ["loop.num_steps=9"], ["loop.num_steps=10"]):
        assert cli("resume", "run", *words).code == 0
    answer = cli("reproduce", "run")
    before = said_before(answer)
    assert before.startswith(f"{UNCHANGED}\n  This run was extended from 4 to 10 steps. The extension {said}")
    assert before.count("\n") == 1 and answer.out.count("This run was extended") == 1
    assert answer.code == 1
    assert answer.out.endswith("\nPossible causes: the extension from 4 to 10 steps.\n")


@pytest.mark.slow
def test_an_extension_that_changed_the_learning_rates_is_not_trained_again(
    small: Cli, cli: Cli, tmp_path: Path
) -> None:
    assert small("hydra.run.dir=run", "scheduler=warmup_cosine").code == 0
    assert cli("resume", "run", "loop.max_steps=6").code == 0
    answer = cli("reproduce", "run", "hydra.run.dir=again")
    assert (answer.code, answer.out) == (
        1,
        f"{UNCHANGED}\n"
        "  This run was extended from 4 to 6 steps. The extension changed the learning rate, so the run cannot be "
        "reproduced exactly.\n"
        "Not reproduced: nothing was trained.\n",
    )
    assert not (tmp_path / "again").exists()


def test_other_resumes_are_counted_in_one_line(recorded: Path, cli: Cli) -> None:
    plain: dict[str, Any] = {"checkpoint": "step_00000002", "differences": []}
    extended = {**plain, "extended": {"global_step": 2, "stop_step": 3, "new_stop_step": 4}}
    elsewhere = {**plain, "differences": ["torch: 1 -> 2", "python: 3 -> 4"]}
    edit(recorded / "summary.json", resumes=[plain, plain])
    answer = cli("reproduce", "run")
    again = "  resumed: 2 times; now the run is repeated without interruption"
    assert (answer.code, said_before(answer)) == (0, f"{UNCHANGED}\n{again}")
    edit(recorded / "summary.json", resumes=[plain, extended, elsewhere], weights_sha256="0" * 64)
    answer = cli("reproduce", "run")
    elsewhere_text = "resumed: 3 times, 1 of these in another environment (torch: 1 -> 2; python: 3 -> 4)"
    extension = "This run was extended from 3 to 4 steps. The extension changed the learning rate"
    text = f"{extension}, so the run cannot be reproduced exactly."
    assert answer.out == f"{UNCHANGED}\n  {elsewhere_text}\n  {text}\nNot reproduced: nothing was trained.\n"
    edit(recorded / "summary.json", resumes=[plain, elsewhere], weights_sha256="0" * 64)
    assert cli("reproduce", "run").out.endswith("\nPossible causes: a resume in another environment.\n")


@pytest.mark.parametrize(
    "extended", [7, {}, {"global_step": "2", "stop_step": 3, "new_stop_step": 4}, {"global_step": 9, "stop_step": 3}]
)
def test_numbers_that_are_no_extension_are_ignored(extended: Any, recorded: Path, cli: Cli) -> None:
    edit(recorded / "summary.json", resumes=[{"checkpoint": "x", "differences": [], "extended": extended}])
    answer = cli("reproduce", "run")
    assert (answer.code, "extended" in answer.out) == (0, False)


@pytest.mark.slow
def test_a_hash_in_the_facts_of_the_data_is_accepted_as_the_message_says(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "conf" / "data").mkdir(parents=True)
    (tmp_path / "conf" / "data" / "mine.yaml").write_text("_target_: facts_of_mine.data\nfacts: {}\n")
    (tmp_path / "facts_of_mine.py").write_text(
        "from torch.utils.data import DataLoader\n\nfrom loopwright.data import Splits, synthetic\n\n\n"
        "def data(facts):\n    made = synthetic(4, 0, 24, 8)\n"
        "    train, val = (DataLoader(each.dataset, batch_size=4) for each in (made.train, made.val))\n"
        "    return Splits(train, val, facts=facts)\n"
    )
    words = ["--config-dir=conf", "--trust=facts_of_mine", "data=mine", "loggers=json_lines", "loop.num_steps=2"]
    assert cli(*words, "hydra.run.dir=run").code == 0
    said = said_before(cli("reproduce", "run", "--trust=facts_of_mine"))
    remedy = "return Splits(…, facts={'sha256': …}) with your own hash from the function that creates the data"
    assert said.endswith(
        f"only Loopwright's own data sets of at most 256 MiB are hashed; to record a hash in new runs, {remedy}"
    )
    assert cli(*words, "+data.facts.sha256=abc", "hydra.run.dir=other").code == 0
    assert said_before(cli("reproduce", "other", "--trust=facts_of_mine")) == UNCHANGED.replace("in run", "in other")


def test_an_untrusted_folder_runs_no_code(recorded: Path, cli: Cli, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    source = f"import pathlib\npathlib.Path({str(ran)!r}).touch()\nclass Mine:\n    pass\n"
    (recorded / "hydra_plugins").mkdir()
    names = ("planted.py", "sitecustomize.py", "torch.py", "hydra_plugins/__init__.py", "hydra_plugins/planted.py")
    for name in names:
        (recorded / name).write_text(source)
    (recorded / "config.pickle").write_bytes(f"cos\nsystem\n(S'touch {ran}'\ntR.".encode())
    before = tree_hash(recorded)
    answer = cli("reproduce", "run")
    assert answer.code == 0, answer.err
    assert tree_hash(recorded) == before
    text = (recorded / "config.yaml").read_text()
    for target in ("planted.Mine", "os.system", "torch.load", "torch.hub.load"):
        (recorded / "config.yaml").write_text(text.replace("loopwright.models.MLP", target))
        answer = cli("reproduce", "run")
        assert answer.code == 2 and target in answer.err and answer.err.count("\n") == 1
    (recorded / "config.yaml").write_text(text.replace("name: digits", "name: ../../elsewhere"))
    assert cli("reproduce", "run").code == 2
    assert not ran.exists() and not (tmp_path.parent / "elsewhere").exists()


def test_untrusted_records_are_shown_on_plain_lines(recorded: Path, cli: Cli) -> None:
    edit(recorded / "environment.json", torch="\x1b[31m" + "x" * 9_999, python=["\n"] * 999)
    edit(recorded / "summary.json", resumes=[{"checkpoint": "\x1b[2J\nReproduced: all"}, 7], state="running")
    with (recorded / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": "\x1b]0;x\x07\nReproduced: ", "name": "\x1b[1m", "value": "\n\n"}) + "\n")
        file.write("[" * 100_000 + "\n")
    answer = cli("reproduce", "run")
    assert answer.code == 1
    assert "\x1b" not in answer.out and "\nReproduced: " not in answer.out
    assert max(map(len, answer.out.splitlines())) < 4_000


@pytest.mark.parametrize("depth", [100, 900, 100_000])
@pytest.mark.parametrize("name", ["summary.json", "environment.json"])
def test_a_deeply_nested_file_counts_as_missing(name: str, depth: int, recorded: Path, cli: Cli) -> None:
    (recorded / name).write_text('{"data": ' + '{"a": ' * depth + "1" + "}" * depth + "}")
    answer = cli("reproduce", "run")
    assert (answer.code, answer.err) == (0, "")
    assert ("environment: not recorded" if name == "environment.json" else "has no summary") in answer.out


def test_a_folder_instead_of_the_metrics_file_is_named(recorded: Path, cli: Cli, tmp_path: Path) -> None:
    (recorded / "metrics.jsonl").unlink()
    (recorded / "metrics.jsonl").mkdir()
    answer = cli("reproduce", "run")
    problem = "not a regular file; folders, links, pipes and devices are not opened"
    said = f"run/metrics.jsonl: cannot be read: {problem}; expected the file that a run recorded, or no file.\n"
    assert (answer.code, answer.out, answer.err) == (3, "", said)
    assert run_dirs(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("words", [["init_from=run"], ["loop=validation", "ckpt_path=run"]])
def test_changed_initial_weights_are_named(words: list[str], recorded: Path, cli: Cli, small: Cli) -> None:
    if "loop=validation" in words:
        common = [word for word in SMALL if not word.startswith(("loop", "checkpoint"))]
        assert cli(*common, *words, "hydra.run.dir=later").code == 0
    else:
        assert small(*words, "hydra.run.dir=later").code == 0
    assert said_before(cli("reproduce", "later")).startswith(UNCHANGED.replace("in run", "in later"))
    shutil.rmtree(recorded)
    assert small("seed=5", "hydra.run.dir=run").code == 0
    answer = cli("reproduce", "later")
    assert answer.code == 1
    assert said_before(answer).startswith("What differs from later:\n  origins.run/checkpoints/step_00000004: '")
