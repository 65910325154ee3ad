"""Objects built from configurations, and the errors of targets that cannot be built."""

from __future__ import annotations

import copy
import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from gate_attacks import NO_TRUST
from loopwright.errors import SettingError
from loopwright.experiment.gate.instantiate import factory, instantiate
from loopwright.experiment.gate.locate import locate
from loopwright.experiment.gate.trust import Trust

LINEAR = {"_target_": "torch.nn.Linear", "in_features": 3, "out_features": 4}
PACKAGE = "gate_trusted"
TRUST = Trust(packages=(PACKAGE,))
SOURCE = """
from __future__ import annotations
import os, subprocess, functools, json, torch
from os import system
from typing import TYPE_CHECKING
from loopwright.errors import check_count
if TYPE_CHECKING:
    from nowhere import Thing

class Model:
    def __init__(self, width: int = 1, thing: Thing | None = None, extra=None) -> None:
        self.width, self.thing, self.extra = check_count("width", width), thing, extra

    @classmethod
    def tiny(cls):
        return cls(1)

    @staticmethod
    def small(width: int = 2):
        return Model(width)

class Options:
    def __init__(self, **options):
        self.options = options

def keep(value, *values, other=None):
    return value, values, other

def fail(kind: str = "value"):
    if kind == "disk":
        raise OSError(28, "disk full")
    raise {"value": ValueError, "type": TypeError, "key": KeyError, "runtime": RuntimeError}[kind]("no\\nmore lines")

alias = system
bound = Model(3).__init__
partial = functools.partial(system)
instance = Model(2)
loads = json.loads
Tensor = torch.Tensor
code = keep.__code__
"""


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / PACKAGE).mkdir()
    (tmp_path / PACKAGE / "__init__.py").write_text(SOURCE)
    (tmp_path / PACKAGE / "deep.py").write_text("from collections import OrderedDict\nclass Deep: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


def build(node: object, path: str = "") -> Any:
    return instantiate(node, TRUST, path)


def test_plain_values_are_returned_in_new_containers() -> None:
    node = {"a": [1, {"b": None}], "c": "x"}
    built = build(node)
    assert built == node
    built["a"][1]["b"] = 1
    assert node["a"] == [1, {"b": None}]


def test_nested_nodes_become_objects() -> None:
    model = build({"_target_": "torch.nn.Sequential", "_args_": [LINEAR, {"_target_": "torch.nn.ReLU"}]})
    assert [type(layer).__name__ for layer in model] == ["Linear", "ReLU"]
    built = build({"first": None, "second": {"_target_": f"{PACKAGE}.Model", "extra": [LINEAR]}})
    assert built["first"] is None
    assert isinstance(built["second"].extra[0], torch.nn.Linear)


def test_a_partial_node_becomes_a_plain_partial() -> None:
    optimizer = build({"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.5})
    assert type(optimizer) is functools.partial
    assert optimizer.func is torch.optim.SGD
    assert optimizer.keywords == {"lr": 0.5}
    assert copy.deepcopy(optimizer).func is torch.optim.SGD
    assert optimizer([torch.zeros(1)]).param_groups[0]["lr"] == 0.5


def test_classes_receive_plain_containers() -> None:
    value, values, _ = build({"_target_": f"{PACKAGE}.keep", "_args_": [{"a": [1]}, [2]]})
    assert type(value) is dict
    assert type(value["a"]) is list
    assert type(values[0]) is list


def test_nodes_inside_a_node_with_recursive_false_are_not_built() -> None:
    node = {"_target_": f"{PACKAGE}.keep", "_recursive_": False, "value": {"x": LINEAR}, "_args_": []}
    assert build(node)[0] == {"x": LINEAR}
    with pytest.raises(SettingError, match=r"os\.system"):
        build({**node, "value": {"x": {"_target_": "os.system"}}})


@pytest.mark.parametrize("text", ["${oc.env:HOME}", "${x}", "${oc.create:{_target_:os.system}}", "${", "???x"])
def test_texts_are_not_interpolated_again(text: str) -> None:
    value, values, other = build({"_target_": f"{PACKAGE}.keep", "_args_": [text, text], "other": {text: [text]}})
    assert (value, values, other) == (text, (text,), {text: [text]})


@pytest.mark.parametrize(
    "name", ["Model", "keep", "Options", "deep.Deep", "Model.small"]
)  # fmt: skip
def test_objects_defined_in_a_trusted_package_are_found(name: str) -> None:
    assert callable(locate(f"{PACKAGE}.{name}", TRUST))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("alias", "class or a function"),
        ("system", "class or a function"),
        ("os.system", "is the module os"),
        ("os.path.join", "is the module os"),
        ("subprocess.Popen", "is the module subprocess"),
        ("subprocess.run", "is the module subprocess"),
        ("torch.load", "is the module torch"),
        ("loads", "defined in"),
        ("Tensor", "defined in"),
        ("deep.OrderedDict", "defined in"),
        ("check_count", "defined in"),
        ("bound", "class or a function"),
        ("partial", "class or a function"),
        ("instance", "class or a function"),
        ("instance.width", "is not a module or a class"),
        ("Model.tiny", "class or a function"),
        ("os", "class or a function"),
        ("deep", "class or a function"),
        ("code", "class or a function"),
        ("Mode", r"has no Mode\. Did you mean Model\?"),
        ("deep.nothing", "has no nothing"),
        ("missing.Model", "has no missing"),
    ],
)
def test_objects_that_a_trusted_package_only_imports_are_refused(name: str, reason: str) -> None:
    with pytest.raises(SettingError, match=reason) as caught:
        build({"_target_": f"{PACKAGE}.{name}"}, "model")
    assert str(caught.value).startswith(f"model._target_='{PACKAGE}.{name}'")
    assert str(caught.value).isprintable()


def test_a_missing_package_is_named() -> None:
    with pytest.raises(SettingError, match="No module named 'gate_absent'"):
        instantiate({"_target_": "gate_absent.Model"}, Trust(packages=("gate_absent",)))


def test_an_error_of_a_setting_has_its_path() -> None:
    with pytest.raises(SettingError) as caught:
        build({"model": [{"_target_": f"{PACKAGE}.Model", "width": -1}]})
    assert str(caught.value) == "model[0].width=-1: expected a whole number, 1 or more."


@pytest.mark.parametrize("kind", ["value", "type", "key", "runtime"])
def test_an_error_of_a_target_is_reported_in_one_line_with_its_class(kind: str) -> None:
    with pytest.raises(SettingError) as caught:
        build({"_target_": f"{PACKAGE}.fail", "kind": kind}, "data")
    assert str(caught.value).startswith(f"data: {PACKAGE}.fail raised ")
    assert len(str(caught.value).splitlines()) == 1
    assert caught.value.__cause__ is not None


def test_other_errors_of_a_target_propagate_with_a_note() -> None:
    with pytest.raises(OSError, match="disk full") as caught:
        build({"_target_": f"{PACKAGE}.fail", "kind": "disk"}, "data")
    assert caught.value.__notes__ == [f"Raised while {PACKAGE}.fail was built for data."]


def test_unknown_keys_are_accepted_only_with_keyword_arguments() -> None:
    assert build({"_target_": f"{PACKAGE}.Options", "anything": 1}).options == {"anything": 1}
    with pytest.raises(SettingError, match="no such setting"):
        build({"_target_": f"{PACKAGE}.Model", "anything": 1})


def test_an_annotation_under_type_checking_does_not_disable_the_others() -> None:
    assert build({"_target_": f"{PACKAGE}.Model", "thing": "anything"}).thing == "anything"
    with pytest.raises(SettingError, match="width='x': expected a whole number"):
        build({"_target_": f"{PACKAGE}.Model", "width": "x"})


def test_a_factory_is_checked_once_and_each_call_builds_a_new_object() -> None:
    make = factory({"_target_": "torch.nn.Sequential", "_args_": [LINEAR]}, NO_TRUST, "model")
    first, second = make(), make()
    assert isinstance(first, torch.nn.Sequential)
    assert isinstance(second, torch.nn.Sequential)
    assert first[0] is not second[0]
    with pytest.raises(SettingError, match=r"^model\.bias='x'"):
        factory({**LINEAR, "bias": "x"}, NO_TRUST, "model")


def test_hydras_own_list_is_a_second_barrier() -> None:
    with pytest.raises(SettingError):
        instantiate({"_target_": "subprocess.run", "_args_": [["true"]]}, Trust(packages=("subprocess",)))
