"""The patches of `bench/mutants.py` apply to the current source, and only a failed test counts as a find."""

from __future__ import annotations

import shutil
from pathlib import Path

import mutants
import pytest
from mutants import BadMutantError, Mutant

MUTANTS = mutants.all_mutants()


def test_there_are_at_least_20_bugs_with_unique_numbers() -> None:
    assert len(MUTANTS) >= 20
    assert [mutant.name.partition("_")[0] for mutant in MUTANTS] == [f"{n:02}" for n in range(1, len(MUTANTS) + 1)]
    assert len({mutant.incident for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_each_bug_names_its_incident_and_existing_tests(mutant: Mutant) -> None:
    assert mutant.incident.endswith(").")  # the header ends with "(where it was seen)."
    assert mutant.tests
    for test in mutant.tests:
        assert (mutants.ROOT / test).is_file() and Path(test).name.startswith("test_")
        assert test != mutants.OWN_TEST


@pytest.mark.skipif(shutil.which("git") is None, reason="git applies the patches")
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_each_patch_applies_to_the_current_source(mutant: Mutant, tmp_path: Path) -> None:
    assert mutant.changed and all(Path(name).parts[0] == "src" for name in mutant.changed)
    for name in mutant.changed:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(mutants.ROOT / name, tmp_path / name)
    mutants.plant(mutant, tmp_path)
    for name in mutant.changed:
        planted = (tmp_path / name).read_text(encoding="utf-8")
        assert planted != (mutants.ROOT / name).read_text(encoding="utf-8")
        compile(planted, name, "exec")


@pytest.mark.skipif(shutil.which("git") is None, reason="git applies the patches")
def test_a_patch_that_does_not_apply_is_refused(tmp_path: Path) -> None:
    (name,) = set(MUTANTS[0].changed)
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text("something else\n", encoding="utf-8")
    with pytest.raises(BadMutantError, match=rf"^{MUTANTS[0].name}: "):
        mutants.plant(MUTANTS[0], tmp_path)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("# Tests: tests/test_resume.py", "expected a header"),
        ("# Incident: x\n# Tests: tests/test_nothing.py", r"tests/test_nothing\.py: no such test file"),
    ],
)
def test_a_patch_with_an_invalid_header_is_refused(
    header: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    patch = tmp_path / "21_something.patch"
    patch.write_text(f"{header}\ndiff --git a/src/x.py b/src/x.py\n", encoding="utf-8")
    with pytest.raises(BadMutantError, match=rf"^21_something\.patch: {said}"):
        Mutant.read(patch)
    monkeypatch.setattr(mutants, "PATCHES", tmp_path)
    monkeypatch.setattr("sys.argv", ["mutants.py", "--list"])
    assert mutants.main() == 1
    assert capsys.readouterr().err.startswith("21_something.patch: ")


FIXTURE = "import pytest\n@pytest.fixture\ndef broken(): assert False\ndef test_it(broken): pass\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("def test_it(): pass\n", None),
        ("def test_it(): assert False\n", "test_it.py::test_it"),
        (FIXTURE, "test_it.py::test_it"),
    ],
    ids=["passes", "fails", "fixture"],
)
def test_a_failed_test_counts_as_a_find(text: str, found: str | None, tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(text, encoding="utf-8")
    assert mutants.first_failure(tmp_path, ["test_it.py"], 0) == found


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("git") is None, reason="git applies the patches")
def test_a_test_that_also_fails_without_the_bug_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, patch = tmp_path / "root", tmp_path / "bug.patch"
    root.mkdir()
    (root / "value.py").write_text("VALUE = 1\n", encoding="utf-8")
    patch.write_text(
        "diff --git a/value.py b/value.py\n--- a/value.py\n+++ b/value.py\n@@ -1 +1 @@\n-VALUE = 1\n+VALUE = 2\n",
        encoding="utf-8",
    )
    mutant = Mutant(name="bug", incident="None.", tests=("test_passes.py",), patch=patch)
    (root / "test_passes.py").write_text("def test_it(): pass\n", encoding="utf-8")
    monkeypatch.setattr(mutants, "ROOT", root)
    monkeypatch.setattr(
        mutants, "check_trains", lambda copy: None
    )  # it imports the package, which this copy does not have
    test = "from pathlib import Path\ndef test_it(): assert Path('value.py').read_text() == 'VALUE = {}\\n'\n"
    (root / "test_value.py").write_text(test.format(1), encoding="utf-8")
    assert mutants.find(mutant, 0) == "test_value.py::test_it"
    (root / "test_value.py").write_text(test.format(3), encoding="utf-8")
    with pytest.raises(BadMutantError, match=r"^test_value\.py::test_it fails without a bug$"):
        mutants.find(mutant, 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "import no_such_module\n",
        "def test_it(): import no_such_module\n",
        "def test_it(): raise KeyboardInterrupt\n",
        "",
    ],
    ids=["import", "late import", "interrupt", "no test"],
)
def test_code_that_cannot_be_tested_does_not_count(text: str, tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(text, encoding="utf-8")
    with pytest.raises(BadMutantError, match="pytest ended with"):
        mutants.first_failure(tmp_path, ["test_it.py"], 0)


@pytest.mark.slow
def test_a_copy_that_is_not_imported_is_refused(tmp_path: Path) -> None:
    shutil.copytree(mutants.ROOT / "tests", tmp_path / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    with pytest.raises(BadMutantError, match=r"is imported instead of the copy|No module named 'loopwright'$"):
        mutants.check_trains(tmp_path)  # tmp_path has no source
