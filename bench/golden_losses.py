"""Compares the losses of the shipped experiments with the golden files ``tests/golden/torch-VERSION/EXPERIMENT.json``.

    python bench/golden_losses.py            # compare; the exit code is 1 if a loss differs or a file is missing
    python bench/golden_losses.py --renew    # write the golden files again, and print the differences

Each shipped experiment is run with fewer steps and one thread. A golden file contains the training loss at every step,
the validation losses, and the digest of the final weights of one experiment. If the version of torch and the processor
are equal to the entries in the file, all values must be bitwise equal. Otherwise kernels may round differently, and
each loss must be within `TOLERANCE` of the recorded loss. The experiment gpt_stdlib trains on a text that comes with
Python. If this text differs because the version of Python differs, the losses are not compared. The output then
contains "not compared", and the exit code does not change.

`TOLERANCE` is four times the largest difference that was measured on one machine with changed rounding. Environment
variables changed the rounding: ``ATEN_CPU_CAPABILITY`` avx2 and default, ``MKL_CBWR`` AVX2 and COMPATIBLE,
``ONEDNN_MAX_CPU_ISA`` AVX2 and SSE41. In 26 further runs, noise of one unit in the last place was added to the outputs
and gradients of the linear layers. All differences were below 1e-6, with one exception. In a third of the cases, the
losses of digits differed by up to 1.3e-4 from step 10 on, and the difference did not grow later. The cause is one ReLU.
Its input at step 9 is almost zero, and the sign of this input depends on rounding. A learning rate of 0.003001 instead
of 0.003 changes the losses of digits by more than `TOLERANCE`.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from loopwright.cli import main as loopwright
from loopwright.records import read_environment, read_series, read_summary

ROOT = Path(__file__).parents[1] / "tests" / "golden"
TOLERANCE = 5e-4  # largest allowed relative difference of a loss

# Overrides for each experiment. The experiment gpt_stdlib_eval is left out, because it trains like gpt_stdlib and needs
# lm-eval, which is optional.
RUNS: Mapping[str, Sequence[str]] = {
    "digits": ("loop.max_steps=100", "loop.eval_frequency=25"),
    "csv_example": ("loop.max_steps=100", "loop.eval_frequency=25"),
    "vit_digits": ("loop.max_steps=40", "loop.eval_frequency=20"),
    "gpt_stdlib": ("loop.max_steps=20", "loop.eval_frequency=10", "loop.eval_steps=8"),
}
FOR_ALL = ("device=cpu", "log_every_n_steps=1", "device.num_threads=1")  # overrides for all experiments
LOSSES = ("train/loss", "val/loss")


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """The content of a golden file: the results of a run.

    Attributes:
        command: command of the run.
        kernels: version of torch, and properties of the processor that affect rounding.
        python: version of Python, which provides the text of `stdlib_text`.
        data: properties of the data set, for example digests.
        losses: losses by name and step, in full precision.
        weights_sha256: SHA-256 digest of the final weights.
    """

    command: str
    kernels: Mapping[str, str]
    python: str
    data: Mapping[str, Any]
    losses: Mapping[str, Mapping[int, float]]
    weights_sha256: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Result of a comparison of a run with its golden file.

    Attributes:
        is_same: whether the results are bitwise equal or, where allowed, within `TOLERANCE`; None if not compared.
        text: description of the result in one line.
    """

    is_same: bool | None
    text: str


def path_of(experiment: str, root: Path = ROOT) -> Path:
    """Return the path of the golden file of an experiment for the installed version of torch.

    All builds of this version, such as ``+cpu``, use the same file.
    """
    return root / f"torch-{torch.__version__.partition('+')[0]}" / f"{experiment}.json"


def read(path: Path) -> Golden | None:
    """Read a file that `write` wrote. Return None if the file has another format."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        losses = {name: {int(step): loss for step, loss in curve.items()} for name, curve in found["losses"].items()}
        return Golden(**{**found, "losses": losses})
    except (ValueError, LookupError, TypeError, AttributeError):
        return None


def write(golden: Golden, path: Path) -> None:
    """Write a golden file, with one number per line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(golden), indent=2) + "\n", encoding="utf-8")


def measure(experiment: str, *overrides: str) -> Golden:
    """Run an experiment in this process, and return its results.

    Raises:
        RuntimeError: if the run fails. The message contains the output of the run.
    """
    words = [f"experiment={experiment}", *RUNS[experiment], *FOR_ALL, *overrides]
    said = io.StringIO()
    with tempfile.TemporaryDirectory() as work:
        run_dir = Path(work) / "run"
        with redirect_stdout(said), redirect_stderr(said):
            code = loopwright([*words, f"hydra.run.dir={run_dir}"])
        if code != 0:
            raise RuntimeError(f"{experiment}: the run ended with exit code {code}.\n{said.getvalue()}")
        series, summary, ran_in = read_series(run_dir), read_summary(run_dir), read_environment(run_dir)
    return Golden(
        command=" ".join(["loopwright", *words]),
        kernels={
            "torch": ran_in["torch"],
            "machine": ran_in["hardware"]["machine"],
            "processor": ran_in["hardware"]["cpu"],
            "capability": torch.backends.cpu.get_cpu_capability(),
        },
        python=ran_in["python"],
        data=summary["data"],
        losses={name: dict(zip(series[name].steps, series[name].values, strict=True)) for name in LOSSES},
        weights_sha256=summary["weights_sha256"],
    )


def compare(recorded: Golden, now: Golden) -> Verdict:
    """Compare the results of a run with the recorded results.

    The text of the verdict names the first loss that differs too much, and the largest difference.
    """
    if recorded.command != now.command:
        return Verdict(False, f"another command: recorded {recorded.command}, now {now.command}")
    if recorded.data != now.data:
        if recorded.python != now.python:
            return Verdict(None, f"not compared: recorded with the text of Python {recorded.python}, now {now.python}")
        return Verdict(False, f"other data: recorded {dict(recorded.data)}, now {dict(now.data)}")
    elsewhere = [
        f"{key} is {now.kernels[key]}, was {was}" for key, was in recorded.kernels.items() if now.kernels[key] != was
    ]
    because = f"; not compared bitwise: {', '.join(elsewhere)}" if elsewhere else ""
    tolerance = TOLERANCE if elsewhere else 0.0
    before, after = _by_step(recorded), _by_step(now)
    if not before and not after:
        return Verdict(False, "no losses were recorded, and the run has none")
    moved = {key: _relative(before.get(key), after.get(key)) for key in sorted({*before, *after})}
    beyond = [key for key, change in moved.items() if change > tolerance]
    at_most = f"at most {max(moved.values()):.1e} relative"
    if beyond:
        step, name = first = beyond[0]
        return Verdict(
            False,
            f"first difference at step {step}, {name}: recorded {before.get(first)}, now {after.get(first)} "
            f"({moved[first]:.1e} relative); {len(beyond)} of {len(moved)} values differ, {at_most}{because}",
        )
    if elsewhere:
        return Verdict(True, f"{len(moved)} values within {tolerance:g}, {at_most}{because}")
    if recorded.weights_sha256 != now.weights_sha256:
        return Verdict(
            False,
            f"{len(moved)} values bitwise equal, but not the final weights: weights_sha256 recorded "
            f"{recorded.weights_sha256}, now {now.weights_sha256}",
        )
    return Verdict(True, f"{len(moved)} values bitwise equal, and the final weights")


def _by_step(golden: Golden) -> dict[tuple[int, str], float]:
    return {(step, name): loss for name, curve in golden.losses.items() for step, loss in curve.items()}


def _relative(recorded: float | None, now: float | None) -> float:
    """Return the relative change of a loss: 0 if both losses are NaN, infinite if the change cannot be computed."""
    if recorded is None or now is None:
        return math.inf
    if recorded == now or (math.isnan(recorded) and math.isnan(now)):
        return 0.0
    change = abs(now - recorded) / abs(recorded) if recorded else math.inf
    return math.inf if math.isnan(change) else change


def check(experiment: str, root: Path = ROOT) -> Verdict:
    """Run an experiment, and compare its results with its golden file."""
    path = path_of(experiment, root)
    if not path.exists():
        return Verdict(False, f"no file for torch {torch.__version__}: `make golden ARGS=--renew` writes it")
    recorded = read(path)
    if recorded is None:
        return Verdict(False, f"{path} is damaged: `make golden ARGS=--renew` writes it again")
    return compare(recorded, measure(experiment))


def renew(experiment: str, root: Path = ROOT) -> Verdict:
    """Run an experiment, and write or replace its golden file."""
    path, now = path_of(experiment, root), measure(experiment)
    recorded = read(path) if path.exists() else None
    was = compare(recorded, now).text if recorded is not None else "there was no file"
    write(now, path)
    return Verdict(True, f"{was}; written")


def main(words: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Print a line for each experiment, and return the exit code: 1 if an experiment differs from its golden file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--renew", action="store_true", help="write the golden files again")
    act = renew if parser.parse_args(words).renew else check
    is_good = True
    for experiment in RUNS:
        verdict = act(experiment, root)
        print(f"{experiment}: {verdict.text}", flush=True)
        is_good &= verdict.is_same is not False
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
