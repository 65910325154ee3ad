"""`read_facts`: names, groups, hidden values, and files that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from loopwright.experiment.sweep.index_file import write_index
from loopwright.loggers.run_facts import as_text, leaves_as_text, read_facts
from swept import swept


def test_a_run_has_its_folder_its_configuration_and_its_changes(tmp_path: Path) -> None:
    run_dir = tmp_path / "digits" / "2026-11-30_10-00-00_abcdef"
    run_dir.mkdir(parents=True)
    config = {"name": "digits", "objective": "val/accuracy", "data": {"hf_token": "x", "path": "${oc.env:DATA}"}}
    (run_dir / "config.yaml").write_text(yaml.safe_dump(config))
    changes = {"optimizer.lr": [0.1, 0.2], "data.hf_token": [None, "x"], "damaged": 3}
    (run_dir / "summary.json").write_text(json.dumps({"changes": changes}))
    facts = read_facts(run_dir)
    assert (facts.run_name, facts.sweep, facts.experiment, facts.objective) == (
        run_dir.name, None, "digits", "val/accuracy",
    )  # fmt: skip
    assert facts.config["data"] == {"hf_token": "•••", "path": "${oc.env:DATA}"}
    assert facts.changes == {"optimizer.lr": 0.2, "data.hf_token": "•••"}


def test_a_job_has_its_sweep_its_group_and_another_name_at_each_attempt(tmp_path: Path) -> None:
    index = swept([{"model": "mlp"}, {"model": "cnn", "optimizer.lr": 0.5}], [[0.1], [0.2, 0.3]])
    sweep_dir = tmp_path / "s_sweep"
    (sweep_dir / "2").mkdir(parents=True)
    write_index(sweep_dir, index)
    facts = read_facts(sweep_dir / "2")
    assert (facts.run_name, facts.sweep, facts.sweep_dir) == ("s_sweep-2", "s_sweep", sweep_dir)
    assert (facts.label, facts.factors) == ("model=cnn optimizer.lr=0.5", {"model": "cnn", "optimizer.lr": 0.5})
    (sweep_dir / "2.attempt1").mkdir()
    assert read_facts(sweep_dir / "2").run_name == "s_sweep-2-attempt2"


def test_damaged_files_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("!!python/object:os.system x")
    (tmp_path / "run" / "summary.json").write_text("[")
    (tmp_path / "sweep.json").write_text('{"jobs": [{"directory": "run", "group": 0}], "groups": 3}')
    facts = read_facts(tmp_path / "run")
    assert (facts.config, facts.changes, facts.factors, facts.label, facts.experiment) == ({}, {}, {}, "", "loopwright")


def test_settings_are_written_as_text() -> None:
    assert leaves_as_text({"a": {"b": [1, "x"], "c": True}, "d": {}}) == {"a.b": '[1, "x"]', "a.c": "true", "d": "{}"}
    assert as_text("é") == "é"
