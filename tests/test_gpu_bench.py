"""`bench/gpu.py --tiny`: the trainings that it compares do the same work, and the table has all rows."""

from __future__ import annotations

import importlib.util
import re

import gpu
import gpu_trainings
import pytest
import torch
from gpu_trainings import TINY, Setup

from loopwright.device import Gpu

LIGHTNING = [] if importlib.util.find_spec("lightning") is None else ["Lightning, bf16"]


@pytest.mark.slow
def test_the_table_has_all_rows(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--tiny", "--pairs", "2"]) == 0
    lines = [each for each in capsys.readouterr().out.splitlines() if each.startswith("|")]
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines[2:]] == [
        "Trainer, bf16",
        "Trainer, fp16",
        *LIGHTNING,
        "Trainer, background save",
        "Trainer, copy stream",
    ]
    for line in lines[2:]:
        assert line.count("|") == lines[0].count("|")
        assert re.search(r"\| \d+\.\d{3} \| \d+\.\d{3} to \d+\.\d{3} \| unknown peak \|$", line)


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_the_trainer_and_the_hand_written_loop_train_the_same(dtype: str) -> None:
    ours, by_hand = gpu_trainings.by_trainer(TINY, dtype), gpu_trainings.by_hand(TINY, dtype)
    for _ in range(2):  # the second turn continues the first one
        first, second = ours(), by_hand()
        assert first.loss == pytest.approx(second.loss, rel=1e-3)
        assert first.seconds > 0 and second.seconds > 0


def test_only_the_chosen_rows_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--tiny", "--pairs", "1", "--only", "copy stream"]) == 0
    assert capsys.readouterr().out.count("\n| Trainer") == 1


def test_the_row_about_transfers_restores_the_copy_stream() -> None:
    before = Gpu.move
    with gpu_trainings.copying_on_the_current_stream():
        assert Gpu.move is not before
    assert Gpu.move is before


def test_the_flops_of_a_token_are_those_of_gpt_2() -> None:
    flops = Setup(vocab_size=50_257).flops_per_token()
    num_parameters = 124_439_808 - 1024 * 768  # of GPT-2, without its position embeddings
    assert flops == 6 * num_parameters + 12 * 12 * 768 * 1024


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_command_names_the_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        gpu.main([])
    assert caught.value.code == 1 and "use --tiny" in capsys.readouterr().err
