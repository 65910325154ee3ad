"""Packages are trusted only by name, on the command line or in the project file of the current directory."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from loopwright.cli import main
from loopwright.errors import SettingError
from loopwright.experiment.gate.instantiate import instantiate
from loopwright.experiment.gate.trust import Trust, read_trust, serve_from_cwd

Capture = pytest.CaptureFixture[str]
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


def write(cwd: Path, trust: str, name: str = "gate-mine") -> None:
    (cwd / "pyproject.toml").write_text(f"[project]\nname = '{name}'\n[tool.loopwright]\ntrust = {trust}\n")


def install(site: Path, name: str, source: Path, monkeypatch: pytest.MonkeyPatch, *, form: str = "direct_url") -> None:
    """Write the record that pip leaves in a folder on ``sys.path`` when it installs the folder ``source``."""
    record = site / f"{name.replace('-', '_')}-1.0.dist-info"
    record.mkdir(parents=True)
    (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    if form == "direct_url":
        (record / "direct_url.json").write_text(json.dumps({"url": source.as_uri(), "dir_info": {"editable": True}}))
    elif form == "archive":
        (record / "direct_url.json").write_text(json.dumps({"url": (source / "x.whl").as_uri(), "archive_info": {}}))
    elif form == "damaged":
        (record / "direct_url.json").write_text("[")
    monkeypatch.setattr(sys, "path", [*sys.path, str(site)])


def test_a_project_file_may_name_the_package_of_its_project_and_it_is_printed(
    cwd: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    site = tmp_path_factory.mktemp("site")
    install(site, "gate-mine", cwd, monkeypatch)
    write(cwd, "['gate_mine', 'gate_mine.models']")
    trust = read_trust(["gate_other"], cwd)
    assert trust.packages == ("gate_other", "gate_mine", "gate_mine.models")
    assert trust.from_cwd == ("gate_other", "gate_mine")  # the current directory is not on sys.path
    (site / "gate_mine.py").write_text("")
    importlib.invalidate_caches()
    assert read_trust([], cwd).from_cwd == ()
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors == f"loopwright: trusted by {cwd / 'pyproject.toml'}: gate_mine, gate_mine.models\n" * 2


@pytest.mark.parametrize(
    "name", ["torch", "pip", "numpy", "yaml", "omegaconf", "torch.utils.collect_env", "subprocess"]
)
@pytest.mark.parametrize("project", ["gate-mine", "own"])
def test_a_package_that_was_not_installed_from_the_folder_cannot_be_trusted_by_it(
    name: str, project: str, cwd: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = name.partition(".")[0]
    install(tmp_path_factory.mktemp("site"), "gate-mine", cwd, monkeypatch)
    write(cwd, f"['{name}']", top if project == "own" else project)
    with pytest.raises(SettingError) as caught:
        read_trust([], cwd)
    own = top if project == "own" else "gate_mine"
    assert str(caught.value) == (
        f"pyproject.toml: tool.loopwright.trust='{name}': expected {own}, the package of this project, installed from "
        f"this directory with pip install -e .; to trust another package, use --trust {name}."
    )


def test_a_folder_cannot_pretend_that_it_was_installed(cwd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(cwd, "torch", cwd, monkeypatch)
    monkeypatch.setattr(sys, "path", ["", str(cwd), *sys.path])
    write(cwd, "['torch']", "torch")
    with pytest.raises(SettingError, match="expected torch, the package of this project, installed from"):
        read_trust([], cwd)


@pytest.mark.parametrize("form", ["none", "archive", "damaged"])
def test_an_installation_from_elsewhere_is_refused(
    form: str, cwd: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path_factory.mktemp("site"), "gate-mine", cwd, monkeypatch, form=form)
    write(cwd, "['gate_mine']")
    with pytest.raises(SettingError, match="expected gate_mine, the package of this project, installed from"):
        read_trust([], cwd)


def test_a_configuration_runs_no_command_because_its_folder_trusts_torch(
    cwd: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    write(cwd, "['torch']", "torch")
    (cwd / "conf" / "model").mkdir(parents=True)
    target = "_target_: torch.utils.collect_env.run\ncommand: touch it_ran\n"
    (cwd / "conf" / "model" / "mine.yaml").write_text(target)
    monkeypatch.chdir(cwd)
    assert main(["--config-dir", "conf", "model=mine", "data=synthetic"]) == 2
    assert "tool.loopwright.trust='torch'" in capsys.readouterr().err
    assert not (cwd / "it_ran").exists()


@pytest.mark.parametrize(
    "trust", ["['gate_mine']", "['gate_absent']", "['os']", "'omegaconf'", "[1]", "['a b']", "{a = 1}"]
)
def test_other_names_in_a_project_file_are_refused(trust: str, cwd: Path) -> None:
    write(cwd, trust)
    with pytest.raises(SettingError, match=r"pyproject\.toml") as caught:
        read_trust([], cwd)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "start", ["", "[project]\n", "project = 1\n", "[project]\nname = 1\n", "[project]\nname = ''\n"]
)
def test_a_project_without_a_name_trusts_nothing(start: str, cwd: Path) -> None:
    (cwd / "pyproject.toml").write_text(f"{start}[tool.loopwright]\ntrust = ['omegaconf']\n")
    with pytest.raises(SettingError, match="expected a package of this project, which has no name"):
        read_trust([], cwd)


@pytest.mark.parametrize(
    "body",
    [
        "[tool",
        "tool = 3",
        "[tool]\nloopwright = 'x'",
        "\udc80",
        f"a = {'[' * 5_000}",
        f"a = {'1' * 5_000}",
        " " * 1_000_001,
    ],
    ids=range(7),
)
def test_an_invalid_project_file_is_named(body: str, cwd: Path) -> None:
    (cwd / "pyproject.toml").write_bytes(body.encode("utf-8", "surrogateescape"))
    with pytest.raises(SettingError, match=r"pyproject\.toml"):
        read_trust([], cwd)


@pytest.mark.timeout(10)
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_a_project_file_that_is_no_regular_file_is_not_opened(kind: str, cwd: Path) -> None:
    file = cwd / "pyproject.toml"
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "device":
        file.symlink_to("/dev/zero")
    else:
        file.mkdir()
    assert read_trust([], cwd).packages == ()


def test_a_project_file_in_a_parent_directory_is_not_read(cwd: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(cwd, "['omegaconf']")
    below = cwd / "runs"
    below.mkdir()
    assert read_trust([], below).packages == ()
    assert capsys.readouterr().err == ""
