"""Recorded configurations are read as untrusted files."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from loopwright.errors import CheckpointError, SettingError
from loopwright.experiment.jobs.recorded import apply_overrides, read_recorded, run_differences
from loopwright.records import read_config


def _write(run_dir: Path, text: str) -> Path:
    run_dir.mkdir(exist_ok=True)
    (run_dir / "config.yaml").write_text(text)
    return run_dir


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: !!python/object/apply:os.system [ls]\n", r"config\.yaml:2: tag"),
        ("a: &x [1]\nb: *x\n", r"config\.yaml:2: aliases are not accepted"),
        ("a: 1\nb: {c: 1, c: 2}\n", r"config\.yaml:2: c is given twice"),
        ("a: [1\n", r"config\.yaml:2: "),
        ("- 1\n", "expected a mapping of names to values"),
        ("", "expected a mapping of names to values"),
        ("a: " + "[" * 200 + "]" * 200, "levels of nesting"),
        ("a: " + "x" * 1_100_000, "at most"),
        ("a: 2024-99-99", r"config\.yaml: has a value that cannot be read as YAML \(ValueError: month must be in"),
        ("a: 2024-01-01T00:00:00+99:99", "cannot be read as YAML"),
        ("a: 0x_", "cannot be read as YAML"),
        ("a: !!int x", "cannot be read as YAML"),
        ("a: !!int ''", "cannot be read as YAML"),
        ("a: !!bool x", "cannot be read as YAML"),
        ('a: "\\U00110000"', "cannot be read as YAML"),
        ("a: =", r"config\.yaml:1: could not determine a constructor"),
        ("a: {<<: 3}", r"config\.yaml:1: expected a mapping or list of mappings"),
        ("a: !!str [1]", r"config\.yaml:1: expected a scalar node"),
        ("? [1, 2]\n: 3", r"config\.yaml:1: expected keys that are words or numbers"),
        ("? {a: b}\n: 3", r"config\.yaml:1: expected keys that are words or numbers"),
        ("a: 1\n---\nb: 2", r"config\.yaml:2: but found another document"),
        ("a: " + "1" * 5_000, r"config\.yaml:1: a number of 5,000 characters"),
        ("a: 0x" + "f" * 5_000, r"config\.yaml:1: a number of 5,002 characters"),
        ("a: " + "9:" * 400_000 + "9", r"config\.yaml:1: a number of 800,001 characters"),
    ],
    ids=lambda text: text[:20],
)
def test_a_file_other_than_a_plain_mapping_is_refused(tmp_path: Path, text: str, said: str) -> None:
    start = time.process_time()
    with pytest.raises(SettingError, match=said) as caught:
        read_recorded(_write(tmp_path, text))
    assert "\n" not in str(caught.value)
    assert time.process_time() - start < 5


def test_long_texts_and_numbers_of_ordinary_length_are_read(tmp_path: Path) -> None:
    text = f"a: {'1' * 300}\nb: '{'1' * 5_000}'\nc: {'1f' * 2_000}\nd: 2024-01-32x\n"
    found = read_recorded(_write(tmp_path, text))
    assert found == {"a": int("1" * 300), "b": "1" * 5_000, "c": "1f" * 2_000, "d": "2024-01-32x"}


@pytest.mark.parametrize(
    ("section", "found"),
    [
        ("{_target_: loopwright.checkpoint.Checkpointing}", {"at_validations": False}),
        ("{_target_: loopwright.Checkpointing}", {"at_validations": False}),
        ("{_target_: loopwright.Checkpointing, at_validations: true}", {"at_validations": True}),
        ("{_target_: mine.Checkpointing}", {}),
        ("null", None),
    ],
)
def test_saves_at_validations_are_off_if_an_older_version_recorded_no_setting(
    tmp_path: Path, section: str, found: dict[str, bool] | None
) -> None:
    checkpoint = read_recorded(_write(tmp_path, f"checkpoint: {section}\n"))["checkpoint"]
    assert found == (None if checkpoint is None else {name: checkpoint[name] for name in checkpoint if name[0] != "_"})


def test_a_directory_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"with a regular file config\.yaml"):
        read_recorded(tmp_path)
    (tmp_path / "elsewhere.yaml").write_text("a: 1")
    (tmp_path / "config.yaml").symlink_to(tmp_path / "elsewhere.yaml")
    with pytest.raises(CheckpointError, match=r"with a regular file config\.yaml"):
        read_recorded(tmp_path)


def test_overrides_only_set_recorded_values() -> None:
    config = {"data": {"batch_size": 4}, "seed": 0}
    apply_overrides(config, ["data.batch_size=8", "seed=null"])
    assert config == {"data": {"batch_size": 8}, "seed": None}
    for word in ("data.batchsize=3", "model=cnn", "+x=1", "~seed", "seed=1,2", "data.batch_size.x=3"):
        with pytest.raises(SettingError):
            apply_overrides(config, [word])


def test_another_model_is_recognized_by_its_settings(tmp_path: Path) -> None:
    run_dir = _write(tmp_path / "run", "model: {_target_: a.B, width: 3, depth: 1}\n")
    checkpoint = run_dir / "checkpoints" / "step_00000001"
    checkpoint.mkdir(parents=True)
    assert run_differences(checkpoint, {"model": {"_target_": "a.B", "width": 3, "depth": 1}}, ["model"]) is None
    assert run_differences(checkpoint, {"model": {"_target_": "a.B", "width": 4}}, ["model"]) == (
        run_dir,
        ["model.width: 3 recorded, 4 now", "model.depth: 1 recorded, not set now"],
    )
    assert run_differences(run_dir, {"model": {"_target_": "a.C"}}, ["model"]) == (
        run_dir,
        ["model: a.B recorded, a.C now"],
    )
    assert run_differences(tmp_path / "bare", {"model": {"_target_": "a.C"}}, ["model"]) is None


def test_commands_that_only_read_find_the_same_configuration(recorded: Path) -> None:
    assert read_config(recorded) == read_recorded(recorded)
