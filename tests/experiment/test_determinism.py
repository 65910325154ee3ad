"""``deterministic=true`` is set before a device is used, and only for its job; errors name the operation."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from command import Answer
from loopwright.device import deterministic_operations, open_device, operation_without_form
from loopwright.errors import SettingError
from loopwright.experiment.jobs import job_checker

Cli = Callable[..., Answer]

VARIABLE = "CUBLAS_WORKSPACE_CONFIG"
MODEL = """
import torch
from loopwright.models import MLP

seen = []

class Model(torch.nn.Module):
    def __init__(self, fails: bool = False) -> None:
        super().__init__()
        self.inner = MLP(hidden=[4])
        self.fails = fails

    def forward(self, batch):
        cudnn = torch.backends.cudnn
        seen.append((torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark))
        if self.fails:
            torch.zeros(3).put_(torch.tensor([0, 0]), torch.ones(2))
        return self.inner(batch)
"""


@pytest.fixture(autouse=True)
def without_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture
def trusted(tmp_path: Path, request: pytest.FixtureRequest) -> list[str]:
    """Return the words that choose a user's model, in a module that only this test imports."""
    name = f"of_{request.node.name.partition('[')[0]}"
    (tmp_path / f"{name}.py").write_text(MODEL)
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "mine.yaml").write_text(f"_target_: {name}.Model\nfails: false\n")
    small = ["data=synthetic", "data.num_train=8", "data.num_val=4", "loop.max_steps=2", "loggers=json_lines"]
    return ["--config-dir=conf", f"--trust={name}", "model=mine", *small]


@pytest.fixture
def at_opening(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """Return a list of the values that the variable has each time a check opens a device."""
    values: list[str | None] = []

    def opened(device: object) -> object:
        values.append(os.environ.get(VARIABLE))
        return open_device(device)  # type: ignore[arg-type]

    monkeypatch.setattr(job_checker, "open_device", opened)
    return values


@pytest.mark.slow
def test_the_variable_is_set_before_a_device_is_opened(
    small: Cli, cli: Cli, at_opening: list[str | None], tmp_path: Path
) -> None:
    assert small("deterministic=true", "hydra.run.dir=run").code == 0
    recorded = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert recorded["variables"][VARIABLE] == ":4096:8"
    for words in (["resume", "run", "loop.max_steps=6"], ["validate", "run"], ["reproduce", "run"]):
        assert cli(*words).code in (0, 1), words
    assert at_opening == [":4096:8"] * 4
    assert VARIABLE not in os.environ
    assert small("hydra.run.dir=other").code == 0
    assert at_opening[4:] == [None]


@pytest.mark.parametrize("jobs", ["true,false", pytest.param("false,true", marks=pytest.mark.slow)])
def test_each_job_of_a_sweep_has_its_own_determinism(
    jobs: str, cli: Cli, trusted: list[str], at_opening: list[str | None]
) -> None:
    before = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        assert cli(*trusted, "-m", f"deterministic={jobs}").code == 0
        assert (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark) == (before[0], True)
    finally:
        torch.backends.cudnn.benchmark = before[1]
    (module,) = (name.partition("=")[2] for name in trusted if name.startswith("--trust"))
    expected = [(True, True, False) if job == "true" else (False, before[0], True) for job in jobs.split(",")]
    seen = __import__(module).seen
    half = len(seen) // 2
    assert seen == [expected[0]] * half + [expected[1]] * half and half >= 3
    seen.clear()
    # The checks of the jobs share one device, and each job opens its own. cuBLAS reads the variable only once.
    assert at_opening == [":4096:8" if jobs == "true,false" else None, ":4096:8", ":4096:8"]
    assert VARIABLE not in os.environ and not torch.are_deterministic_algorithms_enabled()


@pytest.mark.slow
def test_a_workspace_set_by_the_user_is_kept_or_refused(
    small: Cli, at_opening: list[str | None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(VARIABLE, ":16:8")
    assert small("deterministic=true", "hydra.run.dir=kept").code == 0
    assert at_opening == [":16:8"] and os.environ[VARIABLE] == ":16:8"
    monkeypatch.setenv(VARIABLE, ":16:4")
    answer = small("deterministic=true", "hydra.run.dir=refused")
    assert (answer.code, answer.err) == (
        2,
        "CUBLAS_WORKSPACE_CONFIG=':16:4': expected :4096:8 or :16:8 with deterministic=true; "
        "unset it, or use deterministic=false.\n",
    )
    assert not (tmp_path / "refused").exists()
    assert small("hydra.run.dir=other").code == 0
    assert os.environ[VARIABLE] == ":16:4"


@pytest.mark.slow
def test_an_operation_without_a_deterministic_form_is_named(cli: Cli, trusted: list[str], tmp_path: Path) -> None:
    answer = cli(*trusted, "deterministic=true", "model.fails=true", "hydra.run.dir=run")
    said = (
        "deterministic=True: expected operations with a deterministic implementation; put_ has none on this device: "
        "use another operation, or deterministic=false."
    )
    assert (answer.code, answer.err) == (2, f"{said} (traceback in run/run.log)\n")
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["error"] == said
    assert ".put_(" in (tmp_path / "run" / "run.log").read_text()
    assert cli(*trusted, "model.fails=true").code == 0
    assert not torch.are_deterministic_algorithms_enabled()


def test_an_operation_in_a_worker_is_named_and_other_errors_are_unchanged() -> None:
    torchs = "Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  x\n"
    with (
        pytest.raises(SettingError, match=r"; kthvalue CUDA has none on this device: "),
        deterministic_operations(True),
    ):
        raise RuntimeError(f"{torchs}RuntimeError: kthvalue CUDA does not have a deterministic implementation, but you")
    with pytest.raises(RuntimeError, match=r"^out of luck$"), deterministic_operations(True):
        raise RuntimeError("out of luck")


@pytest.mark.parametrize("is_on", [False, True])
@pytest.mark.parametrize("before", [(False, False), (True, False), (True, True)])
def test_settings_of_the_caller_are_restored(is_on: bool, before: tuple[bool, bool]) -> None:
    try:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        with deterministic_operations(is_on):
            assert torch.are_deterministic_algorithms_enabled() is is_on
            assert not torch.is_deterministic_algorithms_warn_only_enabled()
        after = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
        assert after == before
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    ("text", "operation"),
    [
        ("put_ does not have a deterministic implementation, but you set", "put_"),
        ("kthvalue CUDA does not have a deterministic implementation, but you set", "kthvalue CUDA"),
        ("Traceback:\n  x\nRuntimeError: scatter does not have a deterministic implementation", "scatter"),
        ("put_ is slow", None),
    ],
)
def test_the_message_of_torch_is_parsed(text: str, operation: str | None) -> None:
    assert operation_without_form(text) == operation
