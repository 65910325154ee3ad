"""`FakeSlurm`: the commands of Slurm as small scripts. Submitted jobs wait until a test runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from command import environment

FIRST_ID = 1234
# All commands are this script under another name. The folder above it contains a file `ID.state` for each listed job,
# `ID.sh` for each array, and a line in `calls.jsonl` for each call.
SCRIPT = f"""#!{sys.executable} -S
import json, os, re, signal, sys
from pathlib import Path

name, words, root = Path(sys.argv[0]).name, sys.argv[1:], Path(__file__).resolve().parents[1]
with open(root / "calls.jsonl", "a") as file:
    file.write(json.dumps([name, *words]) + "\\n")
states = {{path.stem: path.read_text() for path in root.glob("*.state")}}
if name == "sbatch":
    if (root / "refuses").exists():
        sys.exit("sbatch: error: invalid partition specified")
    text = Path(words[0]).read_text()
    number = {FIRST_ID} + len(list(root.glob("*.sh")))
    (root / f"{{number}}.sh").write_text(text)
    array = re.search(r"--array=0-([0-9]+)", text)
    for task in [""] if array is None else [f"_{{task}}" for task in range(int(array[1]) + 1)]:
        (root / f"{{number}}{{task}}.state").write_text("PENDING")
    print(f"Submitted batch job {{number}}")
    if (root / "interrupts").exists():  # as Ctrl-C just after the submission
        os.kill(os.getppid(), signal.SIGINT)
elif name == "srun":
    while words[0].startswith("--"):
        words = words[1 if words[0] == "--unbuffered" else 2:]
    os.execvp(words[0], words)
elif name == "squeue":
    print(*(each for each, state in states.items() if state in ("PENDING", "RUNNING")), sep="\\n")
elif name == "sacct":
    print("JobID|State|NodeList", *(f"{{each}}|{{state}}|here" for each, state in states.items()), sep="\\n")
elif name == "scontrol":
    (root / f"{{words[1]}}.state").write_text("PENDING")
elif name == "scancel":
    for each in words:
        if states.get(each) == "PENDING" and "--state=PENDING" in words:
            (root / f"{{each}}.state").write_text("CANCELLED by 1000")
"""


class FakeSlurm:
    """A Slurm whose commands are in ``folder/bin``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir(parents=True)
        for name in ("sbatch", "srun", "squeue", "sacct", "scontrol", "scancel"):
            path = self.bin / name
            path.write_text(SCRIPT)
            path.chmod(0o755)

    def interrupt_after_submission(self) -> None:
        """From now on, each submission sends SIGINT to the process that submits."""
        (self.folder / "interrupts").touch()

    def refuse(self) -> None:
        """From now on, refuse all submissions."""
        (self.folder / "refuses").touch()

    def set_state(self, job_id: str, state: str) -> None:
        """Set the state of a job."""
        (self.folder / f"{job_id}.state").write_text(state)

    def calls_of(self, name: str) -> list[list[str]]:
        """Return the arguments of all calls of a command."""
        path = self.folder / "calls.jsonl"
        calls = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [words[1:] for words in calls if words[0] == name]

    def begin(self, job_id: str) -> subprocess.Popen[bytes]:
        """Start a job of an array in the background. The process ends when the job ends or is queued again."""
        self.set_state(job_id, "RUNNING")
        array, _, task = job_id.partition("_")
        variables = {"SLURM_JOB_ID": str(int(array) + 100), "SLURM_ARRAY_JOB_ID": array, "SLURM_ARRAY_TASK_ID": task}
        path = f"{self.bin}{os.pathsep}{os.environ['PATH']}"
        return subprocess.Popen(
            ["bash", str(self.folder / f"{array}.sh")],
            env={**environment(), **variables, "PATH": path},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def run(self, job_id: str) -> None:
        """Run a job of an array to its end."""
        assert self.begin(job_id).wait(timeout=120) == 0
        self.set_state(job_id, "COMPLETED")
