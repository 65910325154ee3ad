"""Packages are trusted only by name, on the command line or in the project file of the current directory."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from loopwright.errors import SettingError
from loopwright.experiment.gate.instantiate import instantiate
from loopwright.experiment.gate.trust import Trust, read_trust, serve_from_cwd

MODULES = ("gate_mine", "gate_other", "gate_package")


@pytest.fixture
def cwd(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "gate_mine.py").write_text("class Model:\n    pass\n")
    (tmp_path / "gate_other.py").write_text("class Model:\n    pass\n")
    (tmp_path / "gate_package").mkdir()
    (tmp_path / "gate_package" / "__init__.py").write_text("")
    (tmp_path / "gate_package" / "models.py").write_text("class Model:\n    pass\n")
    before = list(sys.meta_path)
    importlib.invalidate_caches()
    yield tmp_path
    sys.meta_path[:] = before
    for name in [name for name in sys.modules if name.partition(".")[0] in MODULES]:
        del sys.modules[name]


def test_nothing_is_trusted_by_default(cwd: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert read_trust([], cwd) == Trust(cwd=cwd)
    assert capsys.readouterr() == ("", "")


def test_an_installed_package_is_not_imported_from_the_directory(cwd: Path) -> None:
    (cwd / "omegaconf.py").write_text("raise SystemExit('not this one')")
    assert read_trust(["omegaconf"], cwd).from_cwd == ()


def test_only_trusted_modules_are_imported_from_the_directory(cwd: Path) -> None:
    trust = read_trust(["gate_mine", "gate_package.models"], cwd)
    assert trust.from_cwd == ("gate_mine", "gate_package")
    assert not set(MODULES) & set(sys.modules)
    assert type(instantiate({"_target_": "gate_mine.Model"}, trust)).__name__ == "Model"
    assert type(instantiate({"_target_": "gate_package.models.Model"}, trust)).__name__ == "Model"
    with pytest.raises(SettingError, match="add --trust gate_other only if"):
        instantiate({"_target_": "gate_other.Model"}, trust)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("gate_other")
    assert str(cwd) not in sys.path


def test_a_module_in_the_current_directory_on_sys_path_is_not_installed(
    cwd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(cwd), "", *sys.path])
    assert read_trust(["gate_mine"], cwd).from_cwd == ("gate_mine",)


def test_the_finder_is_installed_once(cwd: Path) -> None:
    trust = read_trust(["gate_mine"], cwd)
    num_before = len(sys.meta_path)
    serve_from_cwd(trust)
    serve_from_cwd(trust)
    assert len(sys.meta_path) == num_before + 1


@pytest.mark.parametrize("name", ["", "a b", "a.", ".a", "../a", "a/b", "a;b", "a-b", "1a", "a\n", "*", "torch.*", "é"])
def test_a_value_that_is_not_a_dotted_name_is_refused(name: str, cwd: Path) -> None:
    with pytest.raises(SettingError, match="--trust="):
        read_trust([name], cwd)


def test_a_name_that_is_not_found_is_refused(cwd: Path) -> None:
    with pytest.raises(SettingError, match=r"--trust='gate_absent': expected an installed package, or a module"):
        read_trust(["gate_absent"], cwd)


def write(cwd: Path, trust: str) -> None:
    (cwd / "pyproject.toml").write_text(f"[project]\nname = 'mine'\n[tool.loopwright]\ntrust = {trust}\n")


def test_a_project_file_may_name_installed_packages_and_they_are_printed(
    cwd: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(cwd, "['omegaconf', 'yaml.nodes']")
    trust = read_trust(["gate_mine"], cwd)
    assert trust.packages == ("gate_mine", "omegaconf", "yaml.nodes")
    assert trust.from_cwd == ("gate_mine",)
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors == f"loopwright: trusted by {cwd / 'pyproject.toml'}: omegaconf, yaml.nodes\n"


@pytest.mark.parametrize(
    "trust",
    ["['gate_mine']", "['gate_absent']", "['os']", "['subprocess']", "'omegaconf'", "[1]", "['a b']", "{a = 1}"],
)
def test_other_names_in_a_project_file_are_refused(trust: str, cwd: Path) -> None:
    write(cwd, trust)
    with pytest.raises(SettingError, match=r"pyproject\.toml") as caught:
        read_trust([], cwd)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("body", ["[tool", "tool = 3", "[tool]\nloopwright = 'x'", "\udc80"])
def test_an_invalid_project_file_is_named(body: str, cwd: Path) -> None:
    (cwd / "pyproject.toml").write_bytes(body.encode("utf-8", "surrogateescape"))
    with pytest.raises(SettingError, match=r"pyproject\.toml"):
        read_trust([], cwd)


def test_a_project_file_in_a_parent_directory_is_not_read(cwd: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(cwd, "['omegaconf']")
    below = cwd / "runs"
    below.mkdir()
    assert read_trust([], below).packages == ()
    assert capsys.readouterr().err == ""
