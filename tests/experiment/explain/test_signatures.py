"""Signatures that are read from the syntax tree equal the signatures of the imported classes and functions."""

from __future__ import annotations

import importlib
import inspect

import pytest

from loopwright.experiment.explain.signatures import NO_DEFAULT, read_signature
from loopwright.experiment.gate.allow import LOOPWRIGHT_TARGETS


@pytest.mark.parametrize("target", sorted(LOOPWRIGHT_TARGETS))
def test_arguments_and_defaults_are_those_of_the_imported_target(target: str) -> None:
    module, _, name = target.rpartition(".")
    imported = getattr(importlib.import_module(module), name)
    own = "__init__" in vars(imported) if inspect.isclass(imported) else True
    parameters = inspect.signature(imported).parameters if own else {}
    found = read_signature(target)
    assert found is not None and found.name == name and found.summary
    assert list(found.arguments) == list(parameters)
    for key, parameter in parameters.items():
        argument, default = found.arguments[key], parameter.default
        if argument.default is not NO_DEFAULT:
            assert argument.default == (list(default) if isinstance(default, tuple) else default)
            assert type(argument.default) is type(default) or isinstance(default, tuple)
        else:
            is_plain = isinstance(default, str | int | float | bool | tuple | None)
            assert default is inspect.Parameter.empty or not is_plain


def test_an_entry_of_the_docstring_is_one_line_without_marks() -> None:
    found = read_signature("loopwright.TrainingLoop")
    assert found is not None
    argument = found.arguments["eval_frequency"]
    assert argument.annotation == "int | float | str | None"
    assert argument.meaning.startswith("interval between validations. An integer n, 1 or more: after every n steps")
    assert "`" not in argument.meaning and "\n" not in argument.meaning
    assert argument.meaning.endswith("always validates after its last step.")


def test_a_type_alias_is_replaced_by_its_options() -> None:
    found = read_signature("loopwright.optim.adamw")
    assert found is not None
    assert found.arguments["kind"].annotation == "auto | for_loop | foreach | fused"
    assert found.arguments["kind"].options == ("auto", "for_loop", "foreach", "fused")


@pytest.mark.parametrize(
    "target", ["torch.nn.Linear", "mine.Net", "loopwright.nothing.X", "loopwright.models.Nothing", "loopwright...X", ""]
)
def test_a_target_that_is_not_part_of_loopwright_is_not_read(target: str) -> None:
    assert read_signature(target) is None
