"""Targets outside the allow-list are refused at every place in a configuration, and the check imports nothing."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gate_attacks import NO_TRUST, PLACES, TARGETS, nothing_imported
from loopwright.errors import SettingError
from loopwright.experiment.gate.allow import LISTED_TARGETS, LOOPWRIGHT_TARGETS, METRIC_TARGETS, TORCH_TARGETS
from loopwright.experiment.gate.locate import locate
from loopwright.experiment.gate.targets import check_targets
from loopwright.experiment.gate.trust import Trust


@pytest.mark.parametrize("place", PLACES)
def test_every_target_is_refused_in_every_place(place: str, tmp_path: Path) -> None:
    with nothing_imported(tmp_path):
        for target in TARGETS:
            with pytest.raises(SettingError, match=r"_target_.*expected") as caught:
                check_targets(PLACES[place](target), NO_TRUST)
            assert str(caught.value).isprintable(), target  # one line without escape sequences


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", [None, 3, True, [], ["os", "system"], {}, {"_target_": "os.system"}, b"os.system"])
def test_a_target_that_is_not_a_text_is_refused(place: str, name: Any) -> None:
    with pytest.raises(SettingError, match="_target_"):
        check_targets(PLACES[place](name), NO_TRUST)


def test_a_subclass_of_str_is_refused() -> None:
    class Text(str):
        """A subclass of str that compares equal to a listed name."""

    with pytest.raises(SettingError):
        check_targets({"model": {"_target_": Text("torch.nn.Linear")}}, NO_TRUST)


def test_every_listed_name_is_accepted_and_names_a_class_or_function() -> None:
    assert len(LISTED_TARGETS) >= 60
    for name in LISTED_TARGETS:
        check_targets({"model": {"_target_": name, "_partial_": True}}, NO_TRUST)
    for name in TORCH_TARGETS:
        locate(name, NO_TRUST)


@pytest.mark.parametrize("name", sorted(LOOPWRIGHT_TARGETS))
def test_every_listed_name_of_loopwright_names_a_class_or_function(name: str) -> None:
    assert callable(locate(name, NO_TRUST))


@pytest.mark.extras
def test_every_listed_metric_exists() -> None:
    pytest.importorskip("torchmetrics")
    for name in METRIC_TARGETS:
        locate(name, NO_TRUST)


def test_the_message_for_a_missing_listed_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    with pytest.raises(SettingError, match=r"torchmetrics is not installed: pip install 'loopwright\[metrics\]'\.$"):
        locate("torchmetrics.regression.R2Score", NO_TRUST, path="callbacks.metrics")


def test_the_message_has_three_parts() -> None:
    with pytest.raises(SettingError) as caught:
        check_targets({"_target_": "os.system"}, NO_TRUST, path="model")
    assert str(caught.value) == (
        "model._target_='os.system': expected a class or function that Loopwright allows, or one in a package "
        "that you trust; add --trust os only if you trust its code."
    )
    with pytest.raises(SettingError, match=r"\. Did you mean loopwright\.models\.MLP\?$"):
        check_targets({"_target_": "loopwright.models.MPL"}, NO_TRUST)


@pytest.mark.parametrize(
    ("name", "is_allowed"),
    [
        ("my_pkg.Model", True),
        ("my_pkg.deep.Model", True),
        ("my_pkg", False),
        ("my_pkgs.Model", False),
        ("my.pkg.Model", False),
        ("other.my_pkg.Model", False),
        ("my_pkg.Model.__init__", False),
        ("other.part.Model", True),
        ("other.Model", False),
        ("other.parts.Model", False),
    ],
)
def test_trust_matches_whole_parts_of_a_name(name: str, is_allowed: bool) -> None:
    trust = Trust(packages=("my_pkg", "other.part"))
    if is_allowed:
        check_targets({"_target_": name}, trust)
    else:
        with pytest.raises(SettingError):
            check_targets({"_target_": name}, trust)


@pytest.mark.parametrize(
    "special",
    [
        {"_partial_": "yes"},
        {"_partial_": 1},
        {"_recursive_": None},
        {"_args_": {"0": 1}},
        {"_args_": "abc"},
        {"_convert_": "none"},
        {"_convert_": ["all"]},
        {3: 4},
    ],
)
def test_invalid_values_of_special_keys_are_refused(special: dict[Any, Any]) -> None:
    with pytest.raises(SettingError):
        check_targets({"model": {"_target_": "torch.nn.Linear", **special}}, NO_TRUST)


def test_the_size_of_a_tree_is_limited() -> None:
    bomb: Any = "x"
    for _ in range(9):
        bomb = [bomb] * 10  # 10^9 values in 9 lists, as YAML aliases produce them
    deep: Any = "x"
    for _ in range(5_000):
        deep = {"a": deep}
    ring: list[Any] = []
    ring.append(ring)
    start = time.process_time()
    for tree in (bomb, deep, ring, ["x" * 1_000_001], {"x" * 1_000_001: 1}, list(range(10_001))):
        with pytest.raises(SettingError, match="expected at most"):
            check_targets(tree, NO_TRUST)
    assert time.process_time() - start < 5


@pytest.mark.parametrize("tree", [{"a": object()}, {"a": {1, 2}}, {"a": b"x"}, {("a", "b"): 1}, {"a\x1b[2J": 1}])
def test_other_data_and_unprintable_keys_are_refused(tree: dict[Any, Any]) -> None:
    with pytest.raises(SettingError) as caught:
        check_targets(tree, NO_TRUST)
    assert str(caught.value).isprintable()
