"""Recorded configurations are read as untrusted files."""

from __future__ import annotations

from pathlib import Path

import pytest

from loopwright.errors import SettingError
from loopwright.experiment.jobs.recorded import apply_overrides, read_recorded, run_differences


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
    ],
)
def test_a_file_other_than_a_plain_mapping_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SettingError, match=said):
        read_recorded(_write(tmp_path, text))


def test_a_directory_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"it has no config\.yaml"):
        read_recorded(tmp_path)
    (tmp_path / "elsewhere.yaml").write_text("a: 1")
    (tmp_path / "config.yaml").symlink_to(tmp_path / "elsewhere.yaml")
    with pytest.raises(SettingError, match=r"it has no config\.yaml"):
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
