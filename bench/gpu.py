"""Compares the training of GPT-2 (124M) by the `Trainer` on one GPU with a hand-written compiled loop.

    python bench/gpu.py                    # all rows
    python bench/gpu.py --only fp16        # the rows with "fp16" in their names
    python bench/gpu.py --tiny             # the same code on the CPU, with a tiny model and the backend aot_eager

The model is Loopwright's `GPT` with 12 blocks, width 768, 12 heads, 1024 positions and 50,304 tokens in the vocabulary
(the 50,257 of GPT-2, rounded up to a multiple of 64). The whole model is compiled, and trained with fused AdamW on
random tokens in pinned memory. Nothing is downloaded. Each row compares two trainings, which run in turn. The first
steps of a turn are not timed. The device is synchronised before the clock is read. The ratio is tokens per second of
the first training divided by tokens per second of the second one. The table contains the median of the ratios and its
95 % confidence interval.

The model FLOPs utilisation is the fraction of the peak in `loopwright.callbacks.peak_flops`. A token needs
6 N + 12 L D T FLOPs (A. Chowdhery et al., "PaLM", 2022, appendix B), for N parameters without the position embeddings,
L blocks of width D, and T positions. Targets: a ratio of at least 1.00 and a utilisation of at least 50 % in bf16.
"""

from __future__ import annotations

import argparse
import functools
import gc
import importlib.util
import platform
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from gpu_trainings import DTYPES, TINY, Setup, Training, Turn, by_hand, by_lightning, by_trainer
from overhead import median_interval

from loopwright import Checkpointing
from loopwright.callbacks.peak_flops import peak_flops_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of the table: two trainings that are compared.

    Attributes:
        name: name of the first training.
        other_name: name of the second training.
        first: function that builds the first training.
        second: function that builds the second training.
        dtype: dtype of the matrix products.
    """

    name: str
    other_name: str
    first: Callable[[], Training]
    second: Callable[[], Training]
    dtype: str = "bf16"


def rows(setup: Setup, folder: Path) -> Iterator[Row]:
    """Yield all rows of the table. Checkpoints are saved in ``folder``."""
    trainer, loop = functools.partial(by_trainer, setup), functools.partial(by_hand, setup)
    for dtype in DTYPES:
        first, second = functools.partial(trainer, dtype), functools.partial(loop, dtype)
        yield Row(name=f"Trainer, {dtype}", other_name="by hand", first=first, second=second, dtype=dtype)
    if importlib.util.find_spec("lightning") is not None:
        first, second = functools.partial(by_lightning, setup, "bf16"), functools.partial(loop, "bf16")
        yield Row(name="Lightning, bf16", other_name="by hand", first=first, second=second)
    # One save is in the timed steps of each turn. The save at the end of a turn is not timed.
    saves = Checkpointing(every_n_steps=setup.num_steps // 2, keep_last=1, background=True)
    plain = functools.partial(trainer, "bf16")
    first = functools.partial(plain, checkpoint=saves, run_dir=folder / "run")
    yield Row(name="Trainer, background save", other_name="without a save", first=first, second=plain)
    loaded = functools.partial(plain, payload_bytes=setup.payload_bytes)
    copied = functools.partial(loaded, overlaps=False)
    yield Row(name="Trainer, copy stream", other_name="copies on the current stream", first=loaded, second=copied)


def compare(row: Row, num_pairs: int) -> list[tuple[Turn, Turn]]:
    """Run both trainings of a row in turn, after a turn of each that compiles and is not counted."""
    trainings = row.first(), row.second()
    for train in trainings:
        train()
    pairs = []
    for pair in range(num_pairs):
        if pair % 2:
            second = trainings[1]()
            pairs.append((trainings[0](), second))
        else:
            pairs.append((trainings[0](), trainings[1]()))
    return pairs


def line(row: Row, setup: Setup, pairs: Sequence[tuple[Turn, Turn]]) -> str:
    """Return a row of the Markdown table."""
    ratios = [second.seconds / first.seconds for first, second in pairs]
    median, low, high = median_interval(ratios)
    ours, theirs = (
        statistics.median(setup.num_timed_tokens / each.seconds for each in side) for side in zip(*pairs, strict=True)
    )
    name = "cpu" if setup.kind == "cpu" else torch.get_device_module(setup.device).get_device_name(setup.device)
    peak = peak_flops_of(name, DTYPES[row.dtype])
    utilisation = "unknown peak" if peak is None else f"{100 * ours * setup.flops_per_token() / peak:.1f} %"
    columns = [row.name, f"{ours:,.0f}", row.other_name, f"{theirs:,.0f}", f"{median:.3f}", f"{low:.3f} to {high:.3f}"]
    return f"| {' | '.join([*columns, utilisation])} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the rows, and print the table. Return the exit code."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=15, help="number of pairs of turns in each row")
    parser.add_argument("--only", default="", metavar="NAME", help="measure only the rows with NAME in their names")
    parser.add_argument("--tiny", action="store_true", help="train a tiny model on the CPU")
    options = parser.parse_args(arguments)
    setup = TINY if options.tiny else Setup()
    if not options.tiny and not torch.accelerator.is_available():
        parser.exit(1, "bench/gpu.py: no GPU is available; use --tiny to run the same code on the CPU.\n")
    print(f"{platform.platform()}, Python {platform.python_version()}, torch {torch.__version__}, {setup.device}")
    print(
        f"{setup.batch_size} rows of {setup.context_length} tokens, {options.pairs} pairs of {setup.num_steps} steps\n"
    )
    print("| training | tokens/s | compared with | tokens/s | ratio | 95 % interval | utilisation |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for row in rows(setup, Path(folder)):
            if options.only in row.name:
                print(line(row, setup, compare(row, options.pairs)), flush=True)
                gc.collect()  # frees the memory of both models
    if importlib.util.find_spec("lightning") is None:
        print("\nLightning is not installed, so it was not measured.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
