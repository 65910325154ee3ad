"""Measure the processor time of the commands that only read, over directories as runs leave them.

Run ``python bench/reading.py`` from the repository. It makes 1,000 run directories in a temporary folder, calls each
command in new processes, and prints the median and the largest processor time, and the number of imported modules.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

NUM_RUNS = 1000
REPEATS = 7
HEAVY = ("torch", "hydra", "omegaconf", "matplotlib", "numpy")


def make_runs(root: Path, num_runs: int) -> list[Path]:
    """Make run directories with a summary, a plan, a configuration and 200 lines of metrics. Return their paths."""
    made = []
    start = datetime(2026, 1, 1, tzinfo=UTC)
    for number in range(num_runs):
        time = start + timedelta(hours=number)
        run = root / "outputs" / f"experiment{number % 7}" / f"{time:%Y-%m-%d_%H-%M-%S}_{number:06x}"
        (run / "checkpoints" / "step_00002000").mkdir(parents=True)
        (run / "checkpoints" / "step_00002000" / "manifest.json").write_text("{}")
        lr = 0.001 * (1 + number % 10)
        metrics = {f"val/{name}": (number % 97) / 97 for name in ("loss", "accuracy")} | {"train/loss": 0.1, "lr": lr}
        summary = {
            "state": ("completed", "failed", "interrupted", "stopped")[number % 4],
            "global_step": 2000,
            "metrics": metrics,
            "best": {"name": "val/loss", "value": metrics["val/loss"], "step": 1800},
            "objective": metrics["val/loss"],
            "objective_name": "val/loss",
            "objective_mode": "min",
            "seconds": 60.0 + number,
            "started": time.isoformat(),
            "ended": (time + timedelta(seconds=60)).isoformat(),
            "cwd": str(root),
            "command": f"loopwright optimizer.lr={lr}",
            "chosen": {"experiment": "digits", "model": "mlp", "data": "digits"},
            "changes": {"optimizer.lr": [0.003, lr], "loop.grad_accum_steps": [1, number % 4]},
            "weights_sha256": f"{number:064x}",
            "data": {"train_content_sha256": f"{7:064x}", "val_content_sha256": f"{8:064x}"},
            "origins": _origins(made[-1]) if number % 10 else {},  # chains of ten runs
            "optimizer": {"name": "AdamW", "groups": [{"kind": "decay", "lr": lr, "weight_decay": 0.01}]},
            "resumes": [],
        }
        (run / "summary.json").write_text(json.dumps(summary, indent=2))
        (run / "plan.json").write_text(json.dumps({"settings": {"loop.max_steps": 2000, "stop_step": 2000}}, indent=2))
        sections = [
            f"section{index}:\n" + "".join(f"  key{key}: {key * 0.5}\n" for key in range(9)) for index in range(9)
        ]
        (run / "config.yaml").write_text(
            f"loop:\n  _target_: loopwright.TrainingLoop\n  max_steps: 2000\noptimizer:\n  lr: {lr}\n"
            + "".join(sections)
        )
        lines = ({"step": step * 10, "name": "val/loss", "value": 1 / (step + 1)} for step in range(200))
        (run / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        made.append(run)
    return made


def _origins(run: Path) -> dict[str, dict[str, str | int]]:
    """Return the checkpoint of a run as the origin of another run."""
    folder = run / "checkpoints" / "step_00002000"
    digest = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    return {str(folder): {"sha256": digest, "run": run.name[-6:], "step": 2000}}


def cpu_seconds(root: Path, words: list[str]) -> float:
    """Return the processor time of a command in a new process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "loopwright", *words], cwd=root, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def heavy_modules(root: Path, words: list[str]) -> list[str]:
    """Return the names of heavy packages that a command imports."""
    code = f"import sys; from loopwright.cli import main; main({words!r}); "
    code += f"print(*[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    return done.stderr.split()


def measure(root: Path, title: str, words: list[str]) -> None:
    """Print the processor time of a command."""
    times = [cpu_seconds(root, words) for _ in range(REPEATS)]
    imported = ", ".join(heavy_modules(root, words)) or "none"
    print(f"{title:<44} median {statistics.median(times):.2f} s, most {max(times):.2f} s; heavy imports: {imported}")


def main() -> None:
    """Measure the commands over 20 and over 1,000 runs."""
    os.environ["PYTHONPATH"] = os.pathsep.join(entry for entry in sys.path if entry)
    with tempfile.TemporaryDirectory() as folder:
        few, many = Path(folder) / "few", Path(folder) / "many"
        newest = make_runs(few, 20)[-1]
        make_runs(many, NUM_RUNS)
        measure(few, "runs, 20 directories", ["runs"])
        measure(few, "show, 20 directories", ["show", newest.name[-6:]])
        measure(few, "show last, 20 directories", ["show", "last"])
        measure(few, "compare, 20 directories", ["compare", "000001", "000002"])
        measure(few, "lineage, 20 directories", ["lineage", "000005"])
        measure(many, "runs, 1,000 directories", ["runs"])
        measure(many, "runs state=failed sort=val/loss limit=20", ["runs", "state=failed", "sort=val/loss", "limit=20"])
        measure(many, "runs columns=optimizer.lr (reads config.yaml)", ["runs", "columns=optimizer.lr"])
        measure(many, "runs format=json", ["runs", "format=json"])
        measure(many, "show, 1,000 directories", ["show", "0001ff"])
        measure(many, "compare 2 of 1,000 directories", ["compare", "0001ff", "000200"])
        measure(many, "compare 6 of 1,000 directories", ["compare", *(f"{number:06x}" for number in range(600, 606))])
        measure(many, "lineage, 1,000 directories", ["lineage", f"{505:06x}"])


if __name__ == "__main__":
    main()
