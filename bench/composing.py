"""Compare the processor time of the commands that only compose a configuration with importing and composing with Hydra.

Run ``python bench/composing.py`` from the repository. A minimal script imports Hydra and composes the default
configuration once. The script and the commands run in turn, each in a new process. The medians and the ratios of the
processor times are printed.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
REPEATS = 15
LIMIT = 1.3  # largest accepted ratio

RAW = f"""
import sys
from hydra import compose, initialize_config_dir

with initialize_config_dir({str(ROOT / "conf")!r}, version_base="1.3"):
    compose("config", overrides=sys.argv[1:], return_hydra_config=True)
"""
# The commands, and the overrides with which the minimal script composes.
COMMANDS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("config",): (),
    ("config", "origins=true"): (),
    ("explain", "loop.eval_frequency"): (),
    ("explain", "callbacks"): (),
    ("explain", "loop.eval_frequency", "model=cnn", "loop.num_steps=20"): ("model=cnn", "loop.num_steps=20"),
}


def cpu_seconds(words: list[str], directory: Path) -> float:
    """Return the processor time of a new Python process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *words], cwd=directory, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> int:
    """Print the times. Return 1 if a ratio is larger than `LIMIT`."""
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for command, overrides in COMMANDS.items():
            raw, own = [], []
            for _ in range(REPEATS):
                raw.append(cpu_seconds(["-c", RAW, *overrides], Path(folder)))
                own.append(cpu_seconds(["-m", "loopwright", *command], Path(folder)))
            ratio = statistics.median(own) / statistics.median(raw)
            worst = max(worst, ratio)
            shown = f"{statistics.median(own):.3f} s, Hydra alone {statistics.median(raw):.3f} s, ratio {ratio:.2f}"
            print(f"loopwright {' '.join(command)}: {shown}")
    return int(worst > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
