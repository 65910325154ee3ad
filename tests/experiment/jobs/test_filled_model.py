"""Settings of a shipped model that the user has not chosen are filled in from the data and recorded."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from csv import DictReader
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from command import Answer
from loopwright.data import Splits
from photos import write_photos

Cli = Callable[..., Answer]
QUICK = ("loop.max_steps=2", "loggers=none", "device=cpu")
KINDS = ("data=csv", "data.path=kinds.csv", "data.target=kind")
PRICES = ("data=csv", "data.path=kinds.csv", "data.target=size", "model=mlp_regressor")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Write a table, photos and tensors into the directory of the command, and return it."""
    rows = [f"{row},{'xy'[row % 2]},{'abc'[row % 3]}\n" for row in range(20)]
    (tmp_path / "kinds.csv").write_text("size,city,kind\n" + "".join(rows))
    write_photos(tmp_path / "photos", size=(8, 8))
    save_file({"features": torch.randn(20, 3), "label": torch.arange(20)}, tmp_path / "rows.safetensors")
    (tmp_path / "conf" / "model").mkdir(parents=True)
    return tmp_path


def model_in(run_dir: Path) -> dict[str, object]:
    model: dict[str, object] = yaml.safe_load((run_dir / "config.yaml").read_text())["model"]
    return model


@pytest.mark.parametrize(
    ("words", "note"),
    [
        (KINDS, "model.in_features=3, model.num_classes=3: from the data"),
        (["experiment=csv_example", *KINDS[1:]], "model.in_features=3: from the data"),
        (
            PRICES,
            "model.in_features=5, model.target_deviation=5.701: from the data; mean_absolute_error has the unit of the "
            "target",
        ),
        ([*PRICES, "data.standardizes=false"], "model.in_features=5: from the data"),
        ([*PRICES, "model.in_features=5", "model.target_deviation=2"], "eval_frequency"),
        (
            ["data=image_folder", "data.path=photos"],
            "model.in_features=12288, model.num_classes=2: from the data; model=cnn is made for images",
        ),
        (
            ["data=image_folder", "data.path=photos", "model=cnn", "model.channels=[4,4,4,4]"],
            "model.in_channels=3, model.image_size=64, model.num_classes=2: from the data",
        ),
        (
            ["data=image_folder", "data.path=photos", "data.image_size=16", "model=vit", "model.num_classes=2"],
            "model.in_channels=3, model.image_size=16: from the data",
        ),
        (
            ["model=gpt", "data=synthetic_tokens", "data.vocab_size=300", "data.num_tokens=400"],
            "model.context_length=400, model.vocab_size=300: from the data",
        ),
    ],
    ids=lambda words: " ".join(words[:4]) if not isinstance(words, str) else "",
)
def test_the_plan_names_the_values_from_the_data(cli: Cli, files: Path, words: list[str], note: str) -> None:
    answer = cli("plan", *words, *QUICK)
    assert (answer.code, answer.err) == (0, "")
    assert f"  note           {note}" in answer.out


@pytest.mark.parametrize("words", [[], ["model=gpt", "data=stdlib_text"], ["data=synthetic_regression", *PRICES[3:]]])
def test_values_that_fit_are_not_noted(cli: Cli, words: list[str]) -> None:
    answer = cli("plan", *words)
    assert answer.code == 0 and "from the data" not in answer.out


@pytest.mark.slow
def test_the_values_are_recorded_and_later_commands_use_them(
    cli: Cli, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    num_built = []
    init = Splits.__init__
    monkeypatch.setattr(Splits, "__init__", lambda self, *args, **kwargs: num_built.append(init(self, *args, **kwargs)))
    assert cli(*KINDS, *QUICK, "hydra.run.dir=run").code == 0
    assert len(num_built) == 1
    assert {"in_features": 3, "num_classes": 3}.items() <= model_in(files / "run").items()
    assert "model.in_features=3, model.num_classes=3: from the data" in (files / "run" / "plan.txt").read_text()
    typed = ("model.in_features=3", "model.num_classes=3", "device.num_threads=1")
    assert cli(*KINDS, *QUICK, *typed, "hydra.run.dir=typed").code == 0
    digests = [json.loads((files / name / "summary.json").read_text())["weights_sha256"] for name in ("run", "typed")]
    assert digests[0] == digests[1]
    for words in (["reproduce", "run"], ["validate", "run"], ["predict", "run", "data.path=kinds.csv"]):
        assert cli(*words).code == 0
    assert cli("loop=validation", "ckpt_path=run", *KINDS, *QUICK[1:]).code == 0
    assert cli(*KINDS, "init_from=run", *QUICK).code == 0
    assert cli("resume", "run", "loop.max_steps=3").code == 0
    assert {"in_features": 3, "num_classes": 3}.items() <= model_in(files / "run").items()
    assert cli("verify", "resume", *KINDS).code == 0


def test_the_mean_absolute_error_has_the_unit_of_the_target(cli: Cli, files: Path) -> None:
    assert cli(*PRICES, *QUICK, "model.hidden=[]", "optimizer.lr=0.1", "hydra.run.dir=run").code == 0
    metrics = json.loads((files / "run" / "summary.json").read_text())["metrics"]
    assert cli("predict", "run", "data.path=kinds.csv", "ckpt_path=last", "output=found.csv").code == 0
    with open(files / "found.csv") as found:
        errors = [abs(float(row["prediction"]) - (int(row["row"]) - 2)) for row in DictReader(found)]
    held_out = errors[4::5]  # every fifth row is validation data
    assert metrics["val/mean_absolute_error"] == pytest.approx(sum(held_out) / len(held_out), rel=1e-4)


def test_a_run_without_the_unit_of_its_metric_can_be_validated(cli: Cli, files: Path) -> None:
    assert cli(*PRICES, *QUICK, "hydra.run.dir=run").code == 0
    config = yaml.safe_load((files / "run" / "config.yaml").read_text())
    del config["model"]["target_deviation"]  # as older versions recorded it
    (files / "run" / "config.yaml").write_text(yaml.safe_dump(config))
    assert cli("validate", "run").code == 0
    assert cli("resume", "run", "loop.max_steps=3").code == 0
    assert cli("loop=validation", "ckpt_path=run", *PRICES, *QUICK[1:]).code == 0


@pytest.mark.slow
def test_each_job_of_a_sweep_gets_its_own_values(cli: Cli, files: Path) -> None:
    answer = cli("-m", "data=csv", "data.path=kinds.csv", "data.target=kind,city", "hydra.sweep.dir=sweep", *QUICK)
    assert answer.code == 0, answer.err
    found = [[model_in(files / "sweep" / job)[name] for name in ("in_features", "num_classes")] for job in "01"]
    assert found == [[3, 3], [4, 2]]
    assert "model.in_features=4, model.num_classes=2: from the data" in (files / "sweep/1/plan.txt").read_text()


@pytest.mark.parametrize(
    "words",
    [
        ["model.in_features=7"],
        ["model={in_features:7}"],
        ["-m", "model.in_features=3,7"],
        ["--config-dir", "conf", "model=mine"],
    ],
    ids=" ".join,
)
def test_a_chosen_value_that_does_not_fit_is_refused(cli: Cli, files: Path, words: list[str]) -> None:
    (files / "conf" / "model" / "mine.yaml").write_text("_target_: loopwright.models.MLP\nin_features: 7\n")
    answer = cli(*words, *KINDS, *QUICK)
    assert answer.code == 2
    assert answer.err.startswith("model.in_features=7: expected 3, the number of values in a sample")
    assert not (files / "outputs").exists()


def test_a_value_that_another_setting_reads_is_not_replaced(cli: Cli, files: Path) -> None:
    answer = cli("name=with_${model.in_features}", *KINDS, *QUICK)
    assert answer.code == 2
    assert answer.err.startswith("model.in_features=64: expected 3, the number of values in a sample")


def test_a_file_of_the_user_without_a_value_gets_it_from_the_data(cli: Cli, files: Path) -> None:
    (files / "conf" / "model" / "mine.yaml").write_text("_target_: loopwright.models.MLP\nnum_classes: 7\n")
    answer = cli("plan", "--config-dir", "conf", "model=mine", *KINDS, *QUICK)
    assert answer.code == 0, answer.err
    assert "model.in_features=3: from the data" in answer.out
    assert "model.num_classes=7: the data have 3 classes" in answer.out


def test_a_label_of_some_rows_is_not_taken_for_the_number_of_classes(cli: Cli, files: Path) -> None:
    answer = cli("plan", "data=tensor_file", "data.path=rows.safetensors", *QUICK)
    assert answer.code == 2
    assert answer.err == "model.num_classes=10: expected at least 19, because the data has the label 18.\n"


def test_a_column_with_an_umlaut_is_repaired_by_the_printed_override(cli: Cli, tmp_path: Path) -> None:
    rows = "".join(f"n{row},{row},{2 * row}\n" for row in range(20))
    (tmp_path / "houses.csv").write_text(f"Straße,Größe,y\n{rows}")
    words = ("plan", "data=csv", "data.path=houses.csv", "data.target=y", "model=mlp_regressor")
    refused = cli(*words)
    (override,) = shlex.split(refused.err.partition("use ")[2].partition(" to leave")[0])
    assert cli(*words, override).code == 0
