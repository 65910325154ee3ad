"""The record of the environment of a run."""

from __future__ import annotations

import json

import pytest
import torch

from loopwright.experiment.gate.trust import NO_TRUST
from loopwright.experiment.jobs.process import process_settings
from loopwright.experiment.rundir.environment import environment, environment_differences

NO_GIT = {"commit": None, "is_dirty": None}


def test_the_environment_is_json_and_contains_no_other_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "swordfish")
    recorded = environment(2, NO_GIT, NO_TRUST)
    assert recorded["torch"] == torch.__version__
    assert recorded["num_threads"] == 2
    assert "swordfish" not in json.dumps(recorded)


@pytest.mark.parametrize("name", ["ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_CBWR", "NVIDIA_TF32_OVERRIDE"])
def test_variables_that_choose_kernels_are_recorded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(name, raising=False)
    before = environment(2, NO_GIT, NO_TRUST)
    assert before["hardware"]["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    monkeypatch.setenv(name, "default")
    assert environment_differences(before, environment(2, NO_GIT, NO_TRUST)) == [f"variables.{name}: None -> default"]


def test_values_that_were_not_recorded_are_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    now = environment(2, NO_GIT, NO_TRUST)
    now["hardware"]["cpu"] = "Xeon, family 6, model 85, stepping 7"
    before = now | {"hardware": now["hardware"] | {"cpu": "Xeon"}, "variables": now["variables"] | {"RANK": "1"}}
    del before["variables"]["ATEN_CPU_CAPABILITY"]
    del before["hardware"]["cpu_capability"], before["source"]
    now["variables"]["CUBLAS_WORKSPACE_CONFIG"] = ":16:8"
    assert environment_differences(before, now) == ["variables.CUBLAS_WORKSPACE_CONFIG: None -> :16:8"]
    before["hardware"]["cpu"] = "Xeo"
    assert environment_differences(before, now)[0] == "hardware.cpu: Xeo -> Xeon, family 6, model 85, stepping 7"


def test_process_settings_are_restored() -> None:
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with process_settings(1, deterministic=True):
        assert torch.get_num_threads() == 1
        assert torch.are_deterministic_algorithms_enabled()
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before
