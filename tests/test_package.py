"""The public names of the package, and the modules that its import does not load."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import loopwright

REPOSITORY = Path(__file__).parent.parent
PARTS = {"callbacks", "data", "device", "loggers", "models", "optim", "plan"}


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_importing_the_package_imports_no_torch_and_nothing_slow() -> None:
    heavy = ("torch", "numpy", "hydra", "omegaconf", "rich", "sklearn", "matplotlib")
    assert run_python(f"import sys, loopwright; print([n for n in {heavy} if n in sys.modules])") == "[]"


def test_the_plan_is_reached_without_torch() -> None:
    code = (
        "import sys, loopwright; loopwright.plan.plan_fit(loopwright.TrainingLoop(5), 3); print('torch' in sys.modules)"
    )
    assert run_python(code) == "False"


@pytest.mark.parametrize("name", loopwright.__all__)
def test_every_public_name_exists(name: str) -> None:
    found = getattr(loopwright, name)
    assert found.__name__ == (f"loopwright.{name}" if name in PARTS else name)
    assert name in dir(loopwright)
    assert getattr(loopwright, name) is found


def test_the_table_and_the_public_names_are_the_same() -> None:
    assert sorted(loopwright._LOCATIONS) == loopwright.__all__


def test_a_wrong_name_gets_the_nearest_one_as_a_suggestion() -> None:
    with pytest.raises(
        AttributeError, match=r"^module 'loopwright' has no attribute 'Trainr'\. Did you mean Trainer\?$"
    ):
        _ = loopwright.Trainr


def test_the_checker_sees_the_names_that_are_resolved_late() -> None:
    block = re.search(r"if TYPE_CHECKING:\n((?:    .*\n)+)", Path(loopwright.__file__).read_text(encoding="utf-8"))
    assert block is not None
    seen = re.findall(r"\b(\w+)(?=,|$)", re.sub(r"from \S+ import", "", block[1]), re.MULTILINE)
    assert sorted(seen) == loopwright.__all__


def test_the_version_is_stated_once() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", loopwright.__version__)
    pyproject = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    assert pyproject["project"]["dynamic"] == ["version"]


def test_constraints_pin_every_direct_dependency() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    direct = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    pins = re.findall(r"^([A-Za-z0-9_.-]+)==\S+$", (REPOSITORY / "constraints.txt").read_text(encoding="utf-8"), re.M)
    assert {re.split(r"[<>=\[]", name)[0] for name in direct} <= set(pins)


@pytest.mark.parametrize("is_enabled", [True, False])
def test_an_import_leaves_the_garbage_collector_as_it_was(is_enabled: bool) -> None:
    switch = "enable" if is_enabled else "disable"
    code = f"import gc; gc.{switch}(); from loopwright import plan; print(gc.isenabled())"
    assert run_python(code) == str(is_enabled)
