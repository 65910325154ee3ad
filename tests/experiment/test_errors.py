"""Error messages that users see: `errors.txt` has commands, exit codes and the exact lines.

If the line names a run log, a run directory is left, with the same message and the traceback. Otherwise no files are
left. Faults in the settings of Loopwright's own models and data are found before anything is created. Faults that only
the code of a trusted package can find, even in its settings, are found during the run, because building such objects
twice may take long.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import faulty
from command import Answer, run_dirs
from photos import write_photos

Cli = Callable[..., Answer]

# Words of commands that are errors on most machines, and whether they are valid on this machine
FITTING = {
    **dict.fromkeys(("gpu", "cuda", "xpu"), torch.accelerator.is_available()),
    "metrics]": find_spec("torchmetrics") is not None,
    "tensorboard": find_spec("tensorboard") is not None,
    "wandb": find_spec("wandb") is not None,
    "/proc/": not Path("/proc/self/mem").exists(),
}


@dataclass(frozen=True)
class Case:
    """A command, its exit code, and its line on the error stream.

    `make test` runs the first case of each section, `make test-all` runs every case.
    """

    command: str
    code: int
    line: str
    is_first: bool


def read_cases() -> list[Case]:
    """Read the entries of ``errors.txt``."""
    text = (Path(__file__).parent / "errors.txt").read_text(encoding="utf-8")
    entries = re.findall(r"^(# .*\n\n)?\$ loopwright (.*)\n(\d+) (.*)$", text, flags=re.MULTILINE)
    return [Case(command, int(code), line, bool(section)) for section, command, code, line in entries]


def plain(said: str) -> str:
    """Replace the parts of a message that differ between runs."""
    return re.sub(r"outputs/\S+/run\.log", "RUN/run.log", said).replace(str(Path.cwd()), "HERE")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Write valid and invalid files into the directory of the command."""
    faulty.write_configs(tmp_path / "conf")
    (tmp_path / "houses.csv").write_text("area,price\n" + "".join(f"{row},{2 * row}\n" for row in range(20)))
    (tmp_path / "kinds.csv").write_text("size,kind\n" + "".join(f"{row},{'ab'[row % 2]}\n" for row in range(500)))
    (tmp_path / "ids.csv").write_text("id,size,kind\n" + "".join(f"u{r},{r},{'ab'[r % 2]}\n" for r in range(20)))
    (tmp_path / "word.csv").write_text("area,price\n1,2\n3,four\n")
    (tmp_path / "short.csv").write_text("area,price\n1,2\n3\n")
    (tmp_path / "blank.csv").write_text("area,price\n1,\n")
    (tmp_path / "row.csv").write_text("area,price\n1,2\n")
    (tmp_path / "hollow.csv").write_text("area,price\n")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "latin.csv").write_bytes("area,price\n1,é\n".encode("latin-1"))
    (tmp_path / "folder").mkdir()
    write_photos(tmp_path / "splits" / "train", size=(8, 8))
    write_photos(tmp_path / "splits" / "test", size=(8, 8))
    write_photos(tmp_path / "photos", size=(8, 8))
    write_photos(tmp_path / "spoilt", size=(8, 8))
    for photo in (tmp_path / "spoilt").glob("*/0.*"):
        photo.write_bytes(b"no image")
    rows = {"features": torch.zeros(20, 3), "label": torch.arange(20) % 4}
    save_file(rows, tmp_path / "rows.safetensors")
    save_file(rows | {"label": torch.arange(20) % 4 - 1}, tmp_path / "negative.safetensors")
    save_file(rows | {"label": rows["label"].float()}, tmp_path / "floats.safetensors")
    save_file(rows | {"features": rows["features"].double()}, tmp_path / "doubles.safetensors")
    rare = torch.tensor([0, 2, *(row % 2 for row in range(500))])
    save_file({"features": torch.zeros(502, 3), "label": rare}, tmp_path / "rare.safetensors")
    save_file({"tokens": torch.zeros(20, 4)}, tmp_path / "tokens.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "rows.safetensors").read_bytes()[:-9])
    np.save(tmp_path / "rows.npy", np.zeros((20, 3)))
    np.save(tmp_path / "fewer.npy", np.zeros((19, 3)))
    (tmp_path / "text.npy").write_text("no numbers")
    return tmp_path


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=case.command, marks=[] if case.is_first else [pytest.mark.slow]) for case in read_cases()],
)
def test_each_command_prints_its_message(
    cli: Cli, files: Path, case: Case, num_workers_left: Callable[..., int]
) -> None:
    if any(is_fitting and word in case.command for word, is_fitting in FITTING.items()):
        pytest.skip("the command is valid on this machine")
    before = set(files.rglob("*"))
    answer = cli(*shlex.split(case.command))
    assert (answer.code, plain(answer.err)) == (case.code, f"{case.line}\n")
    if case.line.endswith("(traceback in RUN/run.log)"):
        (run_dir,) = run_dirs(files)
        summary = json.loads((run_dir / "summary.json").read_text())
        assert (summary["state"], summary["exit_code"]) == ("failed", case.code)
        assert answer.err == f"{summary['error']} (traceback in {run_dir.relative_to(files)}/run.log)\n"
        assert "Traceback (most recent call last)" in (run_dir / "run.log").read_text()
    else:
        assert (answer.out, set(files.rglob("*"))) == ("", before)
    if "num_workers" in case.command:
        assert num_workers_left(is_collected=True) == 0


def test_every_entry_of_the_table_is_read() -> None:
    text = (Path(__file__).parent / "errors.txt").read_text(encoding="utf-8")
    cases = read_cases()
    assert len(cases) == text.count("\n$ ") > 190
    assert 10 < sum(case.is_first for case in cases) < 20


@pytest.mark.slow
def test_failed_jobs_are_in_the_table_and_each_has_its_own_log(cli: Cli, files: Path) -> None:
    """The other jobs continue. Each error is printed when it happens, and again below the table."""
    words = ["--config-dir=conf", "--trust=faulty", "experiment=faulty", "hydra.sweep.dir=out"]
    answer = cli("-m", *words, "model.returns=None,loss,raises", "data.num_train=16,0")
    empty = (
        "data: num_micro_batches=0: expected a training dataloader of 1 micro-batch or more; give it data; drop_last "
        "drops every sample of a data set that is smaller than a batch."
    )
    raised = {
        0: "TypeError: The model returned None: expected the loss as a scalar tensor, or a mapping that contains it, "
        'such as {"loss": loss}.',
        1: empty,
        3: empty,
        4: "ValueError: two lines. Raised in model Model on the first batch of val, before the first step.",
        5: empty,
    }
    said = [f"job {number} failed: {error} ({number}/run.log)" for number, error in raised.items()]
    assert (answer.code, answer.err.splitlines()) == (1, said)
    lines = answer.out.splitlines()
    assert lines[lines.index(said[0]) : lines.index(said[-1]) + 1] == said
    assert "1 of 6 jobs done, 5 failed, in 0:" in answer.out
    jobs = json.loads((files / "out" / "sweep.json").read_text())["jobs"]
    assert [job["state"] for job in jobs] == ["failed", "failed", "done", "failed", "failed", "failed"]
    for number, error in raised.items():
        assert jobs[number]["error"] == error
        assert "Traceback (most recent call last)" in (files / "out" / str(number) / "run.log").read_text()
    assert "Traceback" not in (files / "out" / "2" / "run.log").read_text()
