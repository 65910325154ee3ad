"""Training with ``channels_last``: the format of weights and batches, and checkpoints that do not depend on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tiny
from loopwright import Callback, Checkpointing, TrainingLoop
from loopwright.checkpoint import load_weights, plain_names, read_checkpoint, step_folder, weights_digest
from loopwright.device import Cpu, Device, move_tensors
from loopwright.errors import SettingError


class Conv(nn.Module):
    """A convolutional classifier, with parameters and buffers of other dimensions, too."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.last = nn.Linear(8, 4)
        self.volume = nn.Parameter(torch.zeros(1, 1, 1, 1, 1))
        self.register_buffer("mean", torch.zeros(1, 3, 2, 2))

    def forward(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        image, label = batch
        return nn.functional.cross_entropy(self.last(self.norm(self.first(image)).relu().mean((2, 3))), label)


def data() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(4, 3, 8, 8, generator=generator), torch.randint(4, (4,), generator=generator)) for _ in range(8)
    ]


def train(run_dir: Path, channels_last: bool, **settings: Any) -> Any:
    loop = TrainingLoop(max_steps=8, eval_frequency=4)
    saves = Checkpointing(every_n_steps=1)
    arguments = {"model": Conv, "optimizer": tiny.adamw, "checkpoint": saves, "run_dir": run_dir}
    ckpt_path = settings.pop("ckpt_path", None)
    ours = tiny.trainer(loop, device=Device("cpu", channels_last=channels_last), **(arguments | settings))
    ours.fit(data(), data()[:2], ckpt_path=ckpt_path)
    return ours


def is_channels_last(tensor: Tensor) -> bool:
    return tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()


def test_weights_and_batches_of_training_and_validation_have_the_format(tmp_path: Path) -> None:
    class Watch(Callback):
        def on_before_forward(self, trainer: Any, model: Any, batch: Any, args: Any, kwargs: Any) -> None:
            found.append((model.training, is_channels_last(batch[0])))

    found: list[tuple[bool, bool]] = []
    ours = train(tmp_path, True, callbacks=[Watch()])
    assert {*found} == {(True, True), (False, True)}
    assert is_channels_last(ours.model.first.weight) and is_channels_last(ours.model.mean)


def test_a_run_resumes_bitwise(tmp_path: Path) -> None:
    straight = train(tmp_path / "a", True)
    for step in (3, 4, 7):
        again = train(tmp_path / str(step), True, seed=99, ckpt_path=step_folder(tmp_path / "a", step))
        assert tiny.snapshot(again) == tiny.snapshot(straight)


def test_checkpoints_and_digests_do_not_depend_on_the_format(tmp_path: Path) -> None:
    ours, plain = (train(tmp_path / name, name == "a", optimizer=tiny.sgd) for name in "ab")
    saved, other = (read_checkpoint(step_folder(tmp_path / name, 8)).state["model"] for name in "ab")
    assert {name: each.shape for name, each in saved.items()} == {name: each.shape for name, each in other.items()}
    assert all(torch.allclose(saved[name], other[name], atol=1e-4) for name in saved)
    digest = weights_digest(plain_names(ours.model))
    load_weights(plain.model, saved)
    assert weights_digest(plain_names(plain.model)) == digest and plain.model.first.weight.is_contiguous()


@pytest.mark.parametrize("move", [Cpu(channels_last=True).move, None])
def test_only_4d_floating_point_tensors_are_converted(move: Any) -> None:
    move = move or (lambda batch: move_tensors(batch, torch.device("cpu"), channels_last=True))
    image = torch.randn(2, 3, 4, 4)
    batch = {"image": image, "mask": image > 0, "video": torch.randn(1, 2, 3, 4, 4), "label": torch.ones(2)}
    moved = move(batch)
    assert is_channels_last(moved["image"]) and torch.equal(moved["image"], image)
    assert all(moved[name] is batch[name] for name in ("mask", "video", "label"))


def test_a_wrong_value_is_refused() -> None:
    with pytest.raises(SettingError, match="channels_last='yes': expected true or false"):
        Device(channels_last="yes")  # type: ignore[arg-type]
