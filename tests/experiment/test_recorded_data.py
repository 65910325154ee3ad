"""Commands on a recorded run read the data that the run recorded, from any directory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from command import Answer, run_in
from loopwright.experiment.verify import trials

WORDS = (
    "data=csv",
    "data.path=houses.csv",
    "data.target=price",
    "model=mlp_regressor",
    "model.in_features=1",
    "loop.max_steps=4",
    "checkpoint.every_n_steps=2",
    "loggers=json_lines",
    "hydra.run.dir=run",
)


def write_table(directory: Path, power: int = 2) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / "houses.csv"
    file.write_text("area,price\n" + "".join(f"{row},{row**power}\n" for row in range(20)))
    return file


def digest(run_dir: Path) -> str:
    found = json.loads((run_dir / "summary.json").read_text())["data"]["sha256"]
    assert isinstance(found, str)
    return found


@pytest.fixture(scope="module")
def project_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a table and a run in ``run`` that read it."""
    root = tmp_path_factory.mktemp("project")
    write_table(root)
    assert run_in(root, *WORDS).code == 0
    return root


@pytest.fixture
def project(project_once: Path, tmp_path: Path) -> Path:
    """A copy of that directory, whose summary names it as the directory in which the run was started."""
    root = Path(shutil.copytree(project_once, tmp_path / "project"))
    file = root / "run" / "summary.json"
    found = json.loads(file.read_text())
    assert found["cwd"] == str(project_once)
    file.write_text(json.dumps(found | {"cwd": str(root)}))
    return root


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """An empty directory."""
    (tmp_path / "elsewhere").mkdir()
    return tmp_path / "elsewhere"


def validated(answer: Answer) -> list[str]:
    assert (answer.code, answer.err) == (0, "")
    return answer.out.splitlines()[1:]


def test_a_relative_path_is_read_from_the_directory_of_the_run(project: Path, elsewhere: Path) -> None:
    expected = validated(run_in(project, "validate", "run"))
    assert validated(run_in(elsewhere, "validate", str(project / "run"))) == expected
    write_table(elsewhere, power=3)
    assert validated(run_in(elsewhere, "validate", str(project / "run"))) == expected


def test_a_run_resumed_in_another_directory_keeps_its_records(project: Path, elsewhere: Path) -> None:
    config = (project / "run" / "config.yaml").read_text()
    assert run_in(elsewhere, "resume", str(project / "run"), "loop.max_steps=6").code == 0
    assert (project / "run" / "config.yaml").read_text() == config.replace("max_steps: 4", "max_steps: 6")
    found = json.loads((project / "run" / "summary.json").read_text())
    assert (found["cwd"], found["state"], found["global_step"]) == (str(project), "completed", 6)
    assert run_in(project, "resume", "run", "loop.max_steps=7").code == 0


def test_a_run_reproduced_in_another_directory_is_equal(project: Path, elsewhere: Path) -> None:
    answer = run_in(elsewhere, "reproduce", str(project / "run"), "hydra.run.dir=again")
    assert (answer.code, answer.err) == (0, "")
    assert "What differs" not in answer.out
    assert validated(run_in(project, "validate", str(elsewhere / "again")))  # it has recorded where its data are


@pytest.mark.parametrize("place", ["gone", "changed"])
def test_the_present_directory_is_searched_if_the_recorded_one_lacks_the_data(
    place: str, project: Path, elsewhere: Path
) -> None:
    expected = validated(run_in(project, "validate", "run"))
    shutil.copytree(project, elsewhere, dirs_exist_ok=True)
    if place == "gone":
        shutil.rmtree(project)
    else:
        write_table(project, power=3)
    assert validated(run_in(elsewhere, "validate", "run")) == expected
    assert run_in(elsewhere, "resume", "run", "loop.max_steps=6").code == 0


@pytest.mark.slow
@pytest.mark.parametrize("words", [("validate",), ("validate", "data.num_workers=1"), ("resume", "loop.max_steps=6")])
def test_changed_data_are_refused_with_both_hashes(words: tuple[str, ...], project: Path, tmp_path: Path) -> None:
    recorded = digest(project / "run")
    write_table(project, power=3)
    assert run_in(project, *WORDS[:-1], "hydra.run.dir=other").code == 0
    for cwd in (project, tmp_path):
        verb, *rest = words
        answer = run_in(cwd, verb, str(project / "run"), *rest)
        assert answer.code == 2 and answer.err.count("\n") == 1
        assert f"data.sha256: '{recorded}' recorded, '{digest(project / 'other')}' now" in answer.err
    answer = run_in(project, "reproduce", "run", "hydra.run.dir=again")
    assert answer.code == 1
    assert f"  data.sha256: '{recorded}' recorded, '{digest(project / 'other')}' now\n" in answer.out


def test_data_that_neither_directory_holds_are_reported_with_both_directories(project: Path, elsewhere: Path) -> None:
    (project / "houses.csv").unlink()
    answer = run_in(elsewhere, "validate", str(project / "run"))
    assert answer.code == 2
    assert answer.err == (
        f"data.path='houses.csv': no such file. The run was started in {project}, and its relative paths are searched "
        "there and in the current directory.\n"
    )


def test_a_typed_setting_of_the_data_chooses_other_data(project: Path, elsewhere: Path) -> None:
    expected = validated(run_in(project, "validate", "run"))
    write_table(elsewhere, power=3)
    answer = run_in(elsewhere, "validate", str(project / "run"), "data.path=houses.csv")
    assert answer.code == 0 and answer.out.splitlines()[1:] != expected
    answer = run_in(elsewhere, "validate", str(project / "run"), "data.val_path=houses.csv")
    assert answer.code == 0  # the recorded path is still read from the directory of the run
    write_table(project, power=3)
    refused = run_in(project, "validate", "run")
    samples = "all samples of 'houses.csv' with the encoding in data.json of the run"
    remedy = f"to use {samples}, type data.path=houses.csv.\n"
    assert refused.err.endswith(remedy)
    assert run_in(project, "validate", "run", "data.path=houses.csv").code == 0


def test_a_run_without_a_recorded_directory_is_read_from_the_present_one(project: Path, elsewhere: Path) -> None:
    file = project / "run" / "summary.json"
    found = json.loads(file.read_text())
    for cwd in (None, 3, "relative", "/nowhere\n"):
        file.write_text(json.dumps({name: value for name, value in found.items() if name != "cwd"} | {"cwd": cwd}))
        assert validated(run_in(project, "validate", "run"))
        assert run_in(elsewhere, "validate", str(project / "run")).code == 2


def test_a_checkpoint_of_a_run_is_not_resumed_with_other_data(project: Path) -> None:
    recorded = digest(project / "run")
    write_table(project, power=3)
    words = [word for word in WORDS if not word.startswith(("hydra", "loop.max"))]
    answer = run_in(project, *words, "loop.max_steps=6", "ckpt_path=run")
    assert answer.code == 2
    assert f"data.sha256: '{recorded}' recorded, '" in answer.err
    answer = run_in(project, *words, "loop.max_steps=6", "init_from=run")
    assert answer.code == 0


def test_data_that_change_during_verify_are_refused(
    project: Path, monkeypatch: pytest.MonkeyPatch, cli: Callable[..., Answer]
) -> None:
    monkeypatch.chdir(project)
    build = trials.build_objects

    def build_and_change(*given: object) -> object:
        write_table(project, power=3)
        return build(*given)

    monkeypatch.setattr(trials, "build_objects", build_and_change)
    words = [word for word in WORDS if not word.startswith("hydra")]
    answer = cli("verify", "determinism", *words)
    assert answer.code == 2
    assert answer.err.startswith("data: changed during verify (data.sha256: '") and "' now)" in answer.err
