"""`read_config` reads what Hydra and a YAML loader would read, and refuses everything that no run records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from loopwright.errors import CheckpointError
from loopwright.records import config_leaves, read_config

# PyYAML writes some line separators in a way that it does not read back.
TEXTS = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), max_size=8)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=12,
)
CONFIGS = st.dictionaries(TEXTS, VALUES, max_size=4)


@given(config=CONFIGS, is_flow=st.sampled_from([True, False, None]))
def test_every_written_configuration_is_read_back(
    config: dict[str, Any], is_flow: bool | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    run = tmp_path_factory.mktemp("run")
    (run / "config.yaml").write_text(yaml.safe_dump(config, default_flow_style=is_flow, allow_unicode=True))
    assert read_config(run) == config


@given(config=CONFIGS)
def test_the_leaves_rebuild_the_configuration_of_keys_without_dots(config: dict[str, Any]) -> None:
    config = {f"k{number}": value for number, value in enumerate(config.values()) if not isinstance(value, dict)}
    nested = {"a": {"b": config or 0}, **config}
    leaves = dict(config_leaves(nested))
    assert leaves == {**({f"a.b.{key}": value for key, value in config.items()} or {"a.b": 0}), **config}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a: 1e-5\nb: 1.0e-05\nc: 0x10\nd: 0o7\ne: 1_000", {"a": "1e-5", "b": 1e-5, "c": 16, "d": "0o7", "e": 1000}),
        ("a: yes\nb: 'yes'\nc: ~\nd:\ne: .nan", None),
        ("1: x\nnull: y", {"1": "x", "null": "y"}),
        ("day: 2026-99-99", {"day": "2026-99-99"}),
        ("a: {b: {}}", {"a": {"b": {}}}),
    ],
)
def test_values_are_those_of_yaml(text: str, found: dict[str, Any] | None, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(text)
    expected = yaml.safe_load(text) if found is None else found
    assert repr(read_config(tmp_path)) == repr(expected)


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['touch planted']",
        "a: !!str 1",
        "a: &x [1]\nb: *x",
        "a: 1\na: 2",
        "? [1]\n: 2",
        "[1, 2]",
        "",
        "a: [",
        "a: \x00",
        f"a: {'9' * 5000}",
        "a: " + "[" * 200 + "]" * 200,
        "a:\n" + "- 1\n" * 20_001,
        "a: 1\n" + "#" * 1_000_000,
        "- - - : -",
        "a: 0o8_\nb: 08.5e+999:1",
    ],
)
def test_what_no_run_records_is_refused_or_read_as_text(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(text)
    if text.startswith("a: 0o8_"):
        assert set(read_config(tmp_path)) == {"a", "b"}
        return
    with pytest.raises(CheckpointError, match=r"config\.yaml: ") as caught:
        read_config(tmp_path)
    assert str(caught.value).isprintable() and not (tmp_path / "planted").exists()


def test_a_missing_file_is_empty_and_a_link_is_refused(tmp_path: Path) -> None:
    assert read_config(tmp_path) == {}
    (tmp_path / "other.yaml").write_text("a: 1")
    (tmp_path / "config.yaml").symlink_to("other.yaml")
    with pytest.raises(CheckpointError):
        read_config(tmp_path)
