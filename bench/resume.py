"""Measures the time from the start of a process to its first step, for resumes at steps 10 and 1,000,000 of a run.

    python bench/resume.py               # 15 rounds
    python bench/resume.py --rounds 31

The run trains an MLP on `synthetic` data of 1,000,000,000 samples, shuffled, with 32 samples per step. A validation and
a save are planned every 300 steps. The run is trained for 10 steps, and its checkpoint is called the near checkpoint.
The far checkpoint is a copy of the near checkpoint, made with ``read_checkpoint`` and ``write_checkpoint``. Only the
entry ``position`` of the copy is changed to step 1,000,000, so that a million steps need not be trained. The near and
the far checkpoint contain equal weights. A new process then resumes with ``Trainer.fit(ckpt_path=…)``, and exits after
its first step.

In each round, one process resumes from the far checkpoint and two processes resume from the near checkpoint, in a
rotating order. The far resume is compared with the first near resume. The second near resume is also compared with the
first near resume, which shows the variation between two measurements.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

NEAR_STEP, FAR_STEP = 10, 1_000_000

RUN = f"""
import os
import sys
import time
from functools import partial

import torch

from loopwright import Callback, Checkpointing, Trainer, TrainingLoop
from loopwright.checkpoint import read_checkpoint, write_checkpoint
from loopwright.data import synthetic
from loopwright.models import MLP


class Leave(Callback):
    def on_train_batch_end(self, trainer, model, outputs, batch, batch_idx):
        print(trainer.global_step, time.perf_counter() - begun, flush=True)
        os._exit(0)


class StopNear(Callback):
    def on_train_batch_end(self, trainer, model, outputs, batch, batch_idx):
        if trainer.global_step == {NEAR_STEP}:
            trainer.stop("the near checkpoint is reached")


torch.set_num_threads(1)
checkpoint = sys.argv[1] if len(sys.argv) > 1 else None
data = synthetic(num_train=1_000_000_000)
trainer = Trainer(
    model=MLP,
    optimizer=partial(torch.optim.AdamW, lr=0.003),
    loop=TrainingLoop(max_steps=2_000_000, eval_frequency=300),
    checkpoint=Checkpointing(every_n_steps=300),
    callbacks=[Leave() if checkpoint else StopNear()],
    loggers=[],
    run_dir="run",
)
begun = time.perf_counter()
trainer.fit(data.train, data.val, ckpt_path=checkpoint)
near = trainer.save_checkpoint("near")
position = {{"global_step": {FAR_STEP}, "pass_index": 0, "micro_batch_index": {FAR_STEP}, "num_validated": 0}}
write_checkpoint(near.with_name("far"), {{**read_checkpoint(near).state, "position": position}}, step={FAR_STEP})
"""


@dataclass(frozen=True)
class Start:
    """Times and memory of one process that ends after its first step.

    Attributes:
        wall_seconds: wall time from the start to the end of the process.
        cpu_seconds: CPU time from the start to the end of the process.
        fit_seconds: wall time from the call of ``fit`` to the end of the first step.
        peak_mebibytes: largest resident memory of the process.
    """

    wall_seconds: float
    cpu_seconds: float
    fit_seconds: float
    peak_mebibytes: float


def resume(checkpoint: str, folder: Path) -> Start:
    """Resume from the checkpoint "near" or "far" in a new process, and measure the process."""
    begun = perf_counter()
    with subprocess.Popen([sys.executable, "run.py", checkpoint], cwd=folder, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        printed = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        wall_seconds = perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, f"resuming from {checkpoint} failed"
    step, fit_seconds = printed.split()
    assert int(step) == 1 + (FAR_STEP if checkpoint == "far" else NEAR_STEP), (
        f"{checkpoint}: the first step was {int(step)}"
    )
    peak_bytes = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Start(wall_seconds, usage.ru_utime + usage.ru_stime, float(fit_seconds), peak_bytes / 2**20)


def quartiles(values: Sequence[float]) -> str:
    """Format the median with the first and third quartiles."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


def main() -> None:
    """Measure all rounds, and print the medians and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help="number of rounds, of three processes each")
    options = parser.parse_args()
    order = ["near", "far", "near again"]
    starts: dict[str, list[Start]] = {name: [] for name in order}
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        (folder / "run.py").write_text(RUN)
        subprocess.run([sys.executable, "run.py"], cwd=folder, check=True)
        resume("far", folder), resume("near", folder)
        for index in range(options.rounds):
            for name in order[index % 3 :] + order[: index % 3]:
                starts[name].append(resume(name.removesuffix(" again"), folder))
    print(f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores, one thread")
    print(f"near: step {NEAR_STEP:,}; far: step {FAR_STEP:,}, with a changed position; {options.rounds} rounds")
    for what in ("wall_seconds", "cpu_seconds", "fit_seconds", "peak_mebibytes"):
        values = {name: [getattr(start, what) for start in starts[name]] for name in order}
        near, far = statistics.median(values["near"]), statistics.median(values["far"])
        ratios, scatter = (
            quartiles([mine / other for mine, other in zip(values[name], values["near"], strict=True)])
            for name in ("far", "near again")
        )
        print(f"{what:14}  near {near:8.4g}  far {far:8.4g}  far/near {ratios}  near/near {scatter}")


if __name__ == "__main__":
    main()
