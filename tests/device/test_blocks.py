"""`find_blocks`: the rules that find the repeated blocks of a model, and their order."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from loopwright.device import find_blocks
from loopwright.errors import SettingError
from loopwright.models import GPT, MLP, transformer


class Block(nn.Linear):
    """A block of a model below."""

    def __init__(self) -> None:
        super().__init__(2, 2)


class Other(Block):
    """A block of another class."""


class Layers(nn.Module):
    """A model with lists of modules."""

    def __init__(self, *lists: list[nn.Module]) -> None:
        super().__init__()
        self.lists = nn.ModuleDict({str(index): nn.ModuleList(each) for index, each in enumerate(lists)})


class Unsplit(Layers):
    """A model that names its blocks in the way of Hugging Face."""

    _no_split_modules = ["Other"]  # noqa: RUF012 - Hugging Face writes it so


class Own(Unsplit):
    """A model that returns its blocks."""

    def repeated_blocks(self) -> list[nn.Module]:
        """Return the last list."""
        return [*self.lists["1"]]


@pytest.mark.parametrize(
    ("make", "names", "expected"),
    [
        (lambda: Layers([Block(), Block()], [Block(), Block(), Block()]), None, ["1.0", "1.1", "1.2"]),
        (lambda: Layers([Block(), Block()], [Block(), Other(), Block()]), None, ["0.0", "0.1"]),
        (lambda: Layers([Block(), Block()], [Other()]), ["Other"], ["1.0"]),
        (lambda: Unsplit([Block(), Block()], [Other(), Other()]), None, ["1.0", "1.1"]),
        (lambda: Own([Other(), Other()], [Block()]), None, ["1.0"]),
        (lambda: Own([Other()], [Block()]), ["Other", "Block"], ["0.0", "1.0"]),
    ],
)
@pytest.mark.parametrize("is_wrapped", [False, True])
def test_the_blocks_are_those_of_the_first_rule_that_applies(
    make: Callable[[], nn.Module], names: list[str] | None, expected: list[str], is_wrapped: bool
) -> None:
    model = make()
    by_name = dict(model.get_submodule("lists").named_modules())
    found = find_blocks(nn.Sequential(model) if is_wrapped else model, names)
    assert [id(module) for module in found] == [id(by_name[name]) for name in expected]


def test_the_blocks_of_a_shipped_model_are_found_without_its_weights() -> None:
    with torch.device("meta"):
        model = GPT(width=16, num_layers=3, num_heads=2)
    found = find_blocks(model)
    assert [type(block) for block in found] == [transformer.Block] * 3


@pytest.mark.parametrize(
    ("model", "names", "message"),
    [
        (
            MLP(),
            None,
            r"device\.compile=blocks: no repeated blocks were found in MLP; use compile=model",
        ),
        (Layers([Block()]), None, "no repeated blocks were found in Layers"),
        (Layers([Block()]), ["Blok"], r"device\.blocks=\['Blok'\]: .* modules in Layers. Did you mean Block\?"),
    ],
)
def test_a_model_without_the_blocks_is_refused(model: nn.Module, names: list[str] | None, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        find_blocks(model, names)
