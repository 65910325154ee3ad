"""Adds known bugs to copies of the code, one bug to each copy, and checks whether the tests find each bug.

    python bench/mutants.py                    # tests all bugs in bench/mutants
    python bench/mutants.py --only scheduler   # tests the bugs with "scheduler" in their names
    python bench/mutants.py --list             # prints all bugs and tests none

A bug is a patch, ``bench/mutants/NN_name.patch``, with a header of comments. ``# Incident:`` describes the bug and the
projects that had the bug. ``# Tests:`` names the test files that are expected to find the bug. These test files run
first. If they all pass, all tests run. A bug is found if a test fails. If the copy cannot be imported, cannot train for
three steps, or cannot be tested, the bug is reported as not measured. Two checks make sure that the bug causes the
failure. Before any bug is added, the expected test files must pass on a copy without a bug. A test that fails with a
bug must pass when it runs alone on a copy without a bug.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
PATCHES = ROOT / "bench" / "mutants"
OWN_TEST = "tests/test_mutants.py"  # this test applies all patches, so it fails on a copy with a patch

# Files and folders that are not copied, because tests do not need these files or create these files.
_LEFT_OUT = shutil.ignore_patterns(".git", ".venv*", ".*_cache", "__pycache__", ".hypothesis", "*.egg-info", "20??-*")

_TRAIN = """
import sys
sys.path.insert(0, "tests")
import tiny, loopwright, loopwright.cli
ours = tiny.trainer(loopwright.TrainingLoop(num_steps=3))
assert ours.fit(tiny.batches(), [tiny.batches(2)]).global_step == 3
print(loopwright.__file__)
"""


class BadMutantError(Exception):
    """Raised if a bug cannot be tested, because its patch is invalid or the copy of the code does not work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """A bug to add to a copy of the code.

    Attributes:
        name: name of the patch without its suffix, such as ``01_order_replayed``.
        incident: description of the bug and of the projects that had the bug.
        tests: paths of the test files that are expected to find the bug.
        patch: path of the patch.
    """

    name: str
    incident: str
    tests: tuple[str, ...]
    patch: Path

    @classmethod
    def read(cls, patch: Path) -> Mutant:
        """Read a patch in the folder `PATCHES`."""
        header = patch.read_text(encoding="utf-8").partition("\ndiff ")[0]
        found = re.fullmatch(r"# Incident: (.+(?:\n# .+)*?)\n# Tests: (.+)", header)
        if found is None:
            raise BadMutantError(f"{patch.name}: expected a header with '# Incident: …' and '# Tests: …'")
        tests = tuple(found[2].split())
        missing = [test for test in tests if not (ROOT / test).exists()]
        if missing:
            raise BadMutantError(f"{patch.name}: {missing[0]}: no such test file")
        return cls(name=patch.stem, incident=found[1].replace("\n# ", " "), tests=tests, patch=patch)

    @property
    def changed(self) -> list[str]:
        """Paths of the files that the patch changes. Each changed file is listed twice."""
        lines = self.patch.read_text(encoding="utf-8").splitlines()
        return [line[6:] for line in lines if line.startswith(("--- a/", "+++ b/"))]


def all_mutants() -> list[Mutant]:
    """Return all bugs, in the order of their numbers."""
    return [Mutant.read(patch) for patch in sorted(PATCHES.glob("*.patch"))]


def plant(mutant: Mutant, copy: Path) -> None:
    """Apply the patch to a copy of the repository."""
    # Because of this variable, git ignores a repository that contains the copy.
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(copy.parent)}
    command = ["git", "apply", "--whitespace=nowarn", str(mutant.patch)]
    applied = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
    if applied.returncode:
        raise BadMutantError(f"{mutant.name}: {applied.stderr.strip()}")


def check_trains(copy: Path) -> None:
    """Check that Python imports the copy, and that the copy can train."""
    answer = _python(copy, "-c", _TRAIN)
    if answer.returncode:
        raise BadMutantError(f"three steps of training failed: {_last_line(answer)}")
    imported = Path(answer.stdout.strip().splitlines()[-1])
    if not imported.is_relative_to(copy / "src"):
        raise BadMutantError(f"{imported} is imported instead of the copy")


def first_failure(copy: Path, tests: Sequence[str], num_processes: int) -> str | None:
    """Run tests, and return the first test that fails as ``file::test``; None if all pass. Empty ``tests``: run all.

    Raises:
        BadMutantError: if tests cannot be collected, or if pytest ends without a test result.
    """
    report = copy / "report.xml"
    options = ["-x", "-q", "-p", "no:cacheprovider", "-n", str(num_processes), f"--junitxml={report}"]
    left_out = [] if tests else [f"--ignore={OWN_TEST}"]
    report.unlink(missing_ok=True)
    answer = _python(copy, "-m", "pytest", *options, *left_out, *tests)
    if answer.returncode == 0:
        return None
    # With xdist and the option -x, the exit code of pytest after a failed test is 1 or 2.
    is_ended_by_tests = answer.returncode in (1, 2) and report.exists()
    failed = _failures(report) if is_ended_by_tests else []
    if not failed:
        raise BadMutantError(f"pytest ended with {answer.returncode} and no failed test: {_last_line(answer)}")
    return failed[0]


def _failures(report: Path) -> list[str]:
    """Return the tests with a failure or a failed fixture. Failed imports and collection errors are left out."""
    failed = []
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        for outcome in (*case.findall("failure"), *case.findall("error")):
            message = outcome.get("message", "")
            if "collection failure" not in message and not re.search(r"\b(ImportError|ModuleNotFoundError)\b", message):
                failed.append(f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}")
    return failed


def _last_line(answer: subprocess.CompletedProcess[str]) -> str:
    return " ".join((answer.stdout + answer.stderr).strip().splitlines()[-1:])


def _python(copy: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(copy / "src"), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *arguments], cwd=copy, env=environment, capture_output=True, text=True)


def copied(root: Path, name: str) -> Path:
    """Copy the repository to ``root / name``."""
    return Path(shutil.copytree(ROOT, root / name, symlinks=True, ignore=_LEFT_OUT))


def find(mutant: Mutant, num_processes: int) -> str | None:
    """Add one bug to a copy of the code, and return the test that finds the bug; None if no test finds the bug.

    Raises:
        BadMutantError: if the copy cannot be tested, or if the failed test also fails without the bug.
    """
    with tempfile.TemporaryDirectory() as work:
        copy = copied(Path(work), "planted")
        plant(mutant, copy)
        check_trains(copy)
        failed = first_failure(copy, mutant.tests, num_processes) or first_failure(copy, (), num_processes)
        if failed is not None:
            check_passes(copied(Path(work), "control"), failed)
        return failed


def check_passes(copy: Path, test: str) -> None:
    """Check that a test passes alone on a copy without a bug.

    Raises:
        BadMutantError: if the test fails.
    """
    if first_failure(copy, [test], 0) is not None:
        raise BadMutantError(f"{test} fails without a bug")


def check_control(mutants: Sequence[Mutant], num_processes: int) -> None:
    """Check that the test files that are expected to find the bugs pass without a bug.

    Raises:
        BadMutantError: if a test fails, or if the copy cannot be tested.
    """
    with tempfile.TemporaryDirectory() as work:
        copy = copied(Path(work), "control")
        check_trains(copy)
        failed = first_failure(copy, sorted({test for mutant in mutants for test in mutant.tests}), num_processes)
        if failed is not None:
            raise BadMutantError(f"{failed} fails without a bug")


def main() -> int:
    """Test each bug, print a line for each bug and the number of bugs found, and return the exit code."""
    try:
        return _main()
    except BadMutantError as error:
        print(error, file=sys.stderr)
        return 1


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", metavar="NAME", help="test only the bugs with NAME in their names")
    parser.add_argument("--list", action="store_true", help="print all bugs, and test none")
    parser.add_argument("--jobs", type=int, default=2, help="number of processes that run tests")
    options = parser.parse_args()
    mutants = [mutant for mutant in all_mutants() if options.only in mutant.name]
    if not mutants:
        parser.error(
            f"--only={options.only}: expected a part of one of these names: {', '.join(m.name for m in all_mutants())}"
        )
    if options.list:
        for mutant in mutants:
            print(f"{mutant.name}: {mutant.incident}")
        return 0
    num_found, begun = 0, time.perf_counter()
    check_control(mutants, options.jobs)
    print(f"control: the expected tests pass without a bug ({time.perf_counter() - begun:.0f} s)", flush=True)
    for mutant in mutants:
        begun = time.perf_counter()
        try:
            test = find(mutant, options.jobs)
        except BadMutantError as error:
            print(f"{mutant.name}: NOT MEASURED: {error}", flush=True)
            continue
        num_found += test is not None
        print(f"{mutant.name}: {test or 'NOT FOUND'} ({time.perf_counter() - begun:.0f} s)", flush=True)
    print(f"{num_found}/{len(mutants)} found")
    return 0 if num_found == len(mutants) else 1


if __name__ == "__main__":
    sys.exit(main())
