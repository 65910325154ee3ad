"""One line reports all unknown and missing arguments and all arguments of a wrong type."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, Protocol, Union

import pytest

from gate_attacks import NO_TRUST
from loopwright.errors import SettingError, SettingTypeError
from loopwright.experiment.gate.accepts import accepts, hints_of, say
from loopwright.experiment.gate.call_arguments import check_arguments

LINEAR = {"_target_": "torch.nn.Linear", "in_features": 3, "out_features": 4}
SEQUENTIAL = {"_target_": "torch.nn.Sequential"}
LAYER = "torch.nn.modules.linear.Linear"


class Foreign:
    """A class whose instances cannot be written in a configuration."""


class Shaped(Protocol):
    """A protocol, which is not checked."""


class Colour(enum.Enum):
    """An enumeration. Many classes convert a text to one."""

    RED = "red"


ACCEPTED: list[tuple[Any, Any]] = [
    (3, int),
    (3, float),
    (-0.0, float),
    (float("nan"), float),
    (float("inf"), float),
    (True, bool),
    ("x", str),
    (None, None),
    (None, Optional[int]),  # noqa: UP045
    (None, int | None),
    (3, Union[int, str]),  # noqa: UP007
    ("min", Literal["min", "max"]),
    (1, Literal[1, None]),
    ([1, 2], list[int]),
    ([1, 2], tuple[int, int]),
    ((1, 2), list[int]),
    ([1, 2, 3], tuple[int, ...]),
    ([1, 2.5], Sequence[float]),
    (["a"], Iterable[str]),
    ([1, "x"], list),
    ({"a": 1}, dict[str, int]),
    ({"a": [1]}, Mapping[str, list[int]]),
    ({1: "a"}, dict),
    (3, Annotated[int, "steps"]),
    (0.1, float | Foreign),
]
REFUSED: list[tuple[Any, Any]] = [
    (True, int),
    (True, float),
    (1, bool),
    (2.0, int),
    ("3", int),
    ("abc", float),
    ("1e-3", float),
    (3, str),
    (None, int),
    (False, None),
    ("", int | None),
    ("avg", Literal["min", "max"]),
    (True, Literal[1]),
    ([1, "2"], list[int]),
    (3, list[int]),
    ("abc", Sequence[str]),
    ({"a": 1}, Sequence[str]),
    ([1, 2, 3], tuple[int, int]),
    (["a"], dict[str, int]),
    ({"a": "b"}, dict[str, int]),
    ({1: 1}, dict[str, int]),
    ([[1, True]], list[list[int]]),
    ("abc", float | Foreign),
    (True, float | Foreign | None),
    ("x", Annotated[int, "steps"]),
]
NOT_JUDGED: list[tuple[Any, Any]] = [
    ("x", Any),
    ("x", object),
    ("x", Foreign),
    ("out", Path),
    ("out", int | Path),
    ("red", int | Colour),
    ("x", int | Shaped),
    ("x", Callable[[int], int]),
    ("x", int | Callable[[int], int]),
    ("x", type),
    (Foreign(), Sequence[int]),
    ([1, "x"], list[Foreign]),
]


@pytest.mark.parametrize(("value", "annotation"), ACCEPTED)
def test_values_that_fit(value: Any, annotation: Any) -> None:
    assert accepts(value, annotation) is True


@pytest.mark.parametrize(("value", "annotation"), REFUSED)
def test_values_that_do_not_fit(value: Any, annotation: Any) -> None:
    assert accepts(value, annotation) is False


@pytest.mark.parametrize(("value", "annotation"), NOT_JUDGED)
def test_annotations_that_are_not_checked(value: Any, annotation: Any) -> None:
    assert accepts(value, annotation) is None


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (int, "a whole number"),
        (int | None, "a whole number or null"),
        (tuple[int, ...], "a list of whole numbers"),
        (Literal["min", "max"], "'min' or 'max'"),
        (Sequence[float | None], "a list"),
        (Annotated[float, "seconds"], "a number"),
        (Any, "Any"),
        (dict[str, Literal["a", "b"]], "a mapping of names to 'a' or 'b'"),
        (Mapping[str, float], "a mapping of names to numbers"),
        (Mapping[str, Any], "a mapping"),
    ],
)
def test_annotations_in_plain_words(annotation: Any, text: str) -> None:
    assert say(annotation) == text


def test_annotations_that_cannot_be_evaluated_are_left_out() -> None:
    def function(a: int, b: OnlyForTheChecker) -> None:  # type: ignore[name-defined]  # noqa: F821
        """Annotated with a name that is imported only under TYPE_CHECKING and so is undefined here."""

    annotations = {"a": "int", "b": "OnlyForTheChecker", "c": "not a type"}
    assert hints_of(function, annotations) == {"a": int}


@pytest.mark.parametrize(
    ("node", "line"),
    [
        (
            {**LINEAR, "in_feature": 3},
            "model.in_feature=3: no such setting of torch.nn.modules.linear.Linear. "
            "Accepted: in_features, out_features, bias, device, dtype. Did you mean in_features?",
        ),
        ({"_target_": "torch.nn.Linear", "in_features": 3}, f"model.out_features: missing; {LAYER} needs it."),
        ({**LINEAR, "bias": 1}, "model.bias=1: expected true or false."),
        ({**LINEAR, "in_features": None}, "model.in_features=null: expected a whole number."),
        ({"_target_": "torch.nn.Linear", "_args_": [3, "x"]}, "model._args_[1]='x': expected a whole number."),
        ({**LINEAR, "_args_": [3]}, "model.in_features: given twice, here and in _args_."),
        (
            {"_target_": "torch.nn.Linear", "_args_": [1, 2, True, None, None, 6]},
            "model._args_: torch.nn.modules.linear.Linear takes 5 positional arguments, given 6.",
        ),
        (
            {"_target_": "torch.optim.SGD", "_partial_": True, "lr": "abc"},
            "model.lr='abc': expected a number or Tensor.",
        ),
        ({**SEQUENTIAL, "_args_": [{**LINEAR, "bias": "no"}]}, "model._args_[0].bias='no': expected true or false."),
        ({"_target_": "loopwright.loop.TrainingLoop", "max_step": 1}, None),
    ],
)  # fmt: skip
def test_each_error_is_one_line(node: dict[str, Any], line: str | None) -> None:
    with pytest.raises(SettingError) as caught:
        check_arguments({"model": node}, NO_TRUST)
    assert len(str(caught.value).splitlines()) == 1
    if line is not None:
        assert str(caught.value) == line


def test_all_errors_are_reported_together() -> None:
    tree = {
        "model": {"_target_": "torch.nn.Linear", "in_features": "x"},
        "optimizer": {"_target_": "torch.optim.AdamW", "_partial_": True, "lrr": 1, "betas": [0.9, "x"]},
    }
    with pytest.raises(SettingError) as caught:
        check_arguments(tree, NO_TRUST)
    line = str(caught.value)
    starts = [
        "model.in_features='x': ",
        "model.out_features: missing",
        "optimizer.lrr=1: ",
        "optimizer.betas=[0.9, 'x']",
    ]
    places = [line.index(start) for start in starts]
    assert places == sorted(places)
    assert (places[0], len(line.splitlines())) == (0, 1)


def test_arguments_inside_a_node_with_recursive_false_are_not_checked() -> None:
    node = {**LINEAR, "in_feature": 3}
    kept = {**SEQUENTIAL, "_recursive_": False, "_args_": [node]}
    check_arguments({"model": kept}, NO_TRUST)
    with pytest.raises(SettingError, match=r"^model\._args_\[0\]\.in_feature=3: no such setting"):
        check_arguments({"model": {**kept, "_recursive_": True}}, NO_TRUST)


def test_only_partial_nodes_may_lack_arguments_and_question_marks_are_missing() -> None:
    check_arguments({"_target_": "torch.nn.Linear", "_partial_": True, "in_features": "???"}, NO_TRUST)
    with pytest.raises(SettingError, match=r"^in_features: missing"):
        check_arguments({"_target_": "torch.nn.Linear", "in_features": "???", "out_features": 2}, NO_TRUST)


def test_a_nested_target_fits_any_annotation() -> None:
    check_arguments({"_target_": "torch.nn.Sequential", "_args_": [LINEAR]}, NO_TRUST)
    check_arguments({**LINEAR, "bias": {"_target_": "torch.nn.Identity"}}, NO_TRUST)


def test_a_wrong_type_is_both_a_type_error_and_a_value_error() -> None:
    with pytest.raises(SettingTypeError):
        check_arguments({**LINEAR, "bias": 1}, NO_TRUST)


def test_the_nearest_literal_is_suggested() -> None:
    tree = {"_target_": "loopwright.models.GPT", "positions": "rotry"}
    with pytest.raises(SettingError, match=r"'learned' or 'rotary'\. Did you mean rotary"):
        check_arguments(tree, NO_TRUST)
