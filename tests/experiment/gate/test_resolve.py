"""Interpolations are resolved within a budget, most of the environment cannot be read, and files are checked first."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from loopwright.errors import SettingError
from loopwright.experiment.gate.config_files import check_config_file
from loopwright.experiment.gate.resolve import resolve
from loopwright.experiment.gate.resolvers import lock_resolvers, register_resolver

SECRET = "GATE_TEST_SECRET"


@pytest.fixture(autouse=True)
def locked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(SECRET, "swordfish")
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.delenv("RANK", raising=False)
    lock_resolvers()
    lock_resolvers()
    yield
    OmegaConf.clear_resolvers()


def plain(text: str) -> Any:
    return resolve(OmegaConf.create(text))


def test_interpolations_are_resolved() -> None:
    text = "a: 3\nb: ${a}\nc: {d: '${a}/${b}', e: [1, '${..d}']}\nf: ${c.e}\n"
    built = plain(text + "g: null\nh: ${g}\ni: ${oc.select:z,5}\nj: {}\nk: []")
    assert built == {
        "a": 3, "b": 3, "c": {"d": "3/3", "e": [1, "3/3"]}, "f": [1, "3/3"],
        "g": None, "h": None, "i": 5, "j": {}, "k": [],
    }  # fmt: skip
    assert type(built["c"]) is dict
    assert type(built["f"]) is list


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: {b: '???'}", "a.b=???: a value must be given."),
        ("a: {b: '???'}\nc: ${a.b}", None),
        ("a: ${nothing}", None),
        ("a: ${no_such_resolver:x}", None),
        ("a: ${b}\nb: ${a}", None),
        ("a: ${oc.env}", None),
        ("a: ${oc.env:" + SECRET + "}", None),
        ("a: ${oc.env:" + SECRET + ",default}", None),
        ("a: ${oc.env:GATE_TEST_NOT_SET,default}", None),
        ("n: " + SECRET + "\na: ${oc.env:${n}}", None),
        ("a: ${oc.decode:${oc.env:" + SECRET + "}}", None),
        ("a: ${oc.env:HOME}", None),
        ("a: ${oc.env:PATH}", None),
        ("a: ${oc.env:RANK}", None),
        ("a: x${oc.env:USER}y", None),
        ('"a\\e[2J": 1', None),
    ],
)
def test_interpolations_that_cannot_be_resolved_are_reported_in_one_line(text: str, line: str | None) -> None:
    with pytest.raises(SettingError) as caught:
        plain(text)
    message = str(caught.value)
    assert message.isprintable()
    assert line is None or message == line
    assert all(value not in message for value in ("swordfish", os.environ["PATH"]))


def test_listed_variables_can_be_read() -> None:
    assert plain("a: ${oc.env:SLURM_JOB_ID}\nb: ${oc.env:RANK,0}\nc: ${oc.env:RANK,null}") == {
        "a": "4711",
        "b": "0",
        "c": None,
    }


def chain(head: object, link: Callable[[int], object], length: int) -> dict[str, object]:
    return {"a0": head, **{f"a{i}": link(i - 1) for i in range(1, length)}}


BOMBS: dict[str, dict[str, object]] = {
    "lists": chain([1] * 10, lambda i: [f"${{a{i}}}"] * 10, 12),
    "texts": chain("x" * 1000, lambda i: f"${{a{i}}}${{a{i}}}", 40),
    "relative": {"b": chain("x" * 1000, lambda i: f"${{.a{i}}}${{.a{i}}}", 40)},
    "in a list": {"b": ["x" * 1000, *(f"${{b[{i}]}}${{b.{i}}}" for i in range(40))]},
    "chosen": {
        "n": [f"a{i}" for i in range(40)],
        "c": chain("x" * 1000, lambda i: f"${{c.${{n[{i}]}}}}${{oc.select:c.a{i}}}", 40),
    },
    "chosen every other": {
        "n": [f"a{i}" for i in range(80)],
        "c": chain("x" * 1000, lambda i: f"${{c.${{n[{i}]}}}}" if i % 2 else f"${{.a{i}}}${{.a{i}}}", 80),
    },
    "decoded": chain("x" * 1000, lambda i: f"${{oc.decode:'${{a{i}}}${{a{i}}}'}}", 40),
    "itself": {"a": {"b": {"c": "${a}"}}},
    "in turn": {"a": "${b}${b}", "b": "${a}${a}"},
    "deep": chain("x", lambda i: f"${{a{i}}}", 5_000),
}


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("is_reversed", [False, True])
def test_interpolations_that_multiply_are_refused(bomb: str, is_reversed: bool) -> None:
    tree = BOMBS[bomb]
    start = time.process_time()
    with pytest.raises(SettingError) as caught:
        resolve(OmegaConf.create(dict(reversed(tree.items())) if is_reversed else tree))
    assert len(str(caught.value).splitlines()) == 1
    assert time.process_time() - start < 5


def test_ordinary_nested_interpolations_are_accepted() -> None:
    tree = {"sizes": {"s": 1, "m": 2}, "size": "m", **{f"x{i}": "${sizes.${size}}" for i in range(100)}}
    tree |= {f"y{i}": "${size}_${now:%Y}_${oc.env:SLURM_JOB_ID}" for i in range(100)}
    register_resolver()("now", lambda pattern: "2030", replace=True)
    built = resolve(OmegaConf.create(tree))
    assert built["x99"] == 2
    assert built["y99"] == "m_2030_4711"


ALIASES = "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n" + "\n".join(
    f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)
)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (ALIASES, "values after expansion of aliases"),
        ("[" * 101 + "]" * 101, "levels of nesting"),
        ("[" * 100_000, "levels of nesting"),
        ("a: " + "x" * 1_000_001, "bytes"),
        ("- 1\n" * 30_000, "values"),
        ("a: !!python/object/apply:os.system ['true']", r"stranger\.yaml:1: tag 'tag:yaml\.org,2002:python"),
        ("a: 1\nb: !!python/name:os.system x", r"stranger\.yaml:2: tag"),
        ("a: !mine {b: 1}", "tag"),
        ("a: !!binary aGk=", "tag"),
        ("a: [1", r"stranger\.yaml:\d: "),
        ("a: *nowhere", "alias 'nowhere': no complete value"),
        ("a: \x1b[2J", "expected YAML"),
        ("a: \udc80", "expected YAML"),
    ],
)
def test_files_are_refused_before_they_are_loaded(body: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "stranger.yaml").write_bytes(body.encode("utf-8", "surrogateescape"))
    start = time.process_time()
    with pytest.raises(SettingError, match=reason) as caught:
        check_config_file(tmp_path / "model" / "stranger.yaml")
    assert len(str(caught.value).splitlines()) == 1
    assert time.process_time() - start < 5


def test_ordinary_files_are_accepted(tmp_path: Path) -> None:
    body = "# @package _global_\ndefaults: [/model: mlp]\na: &a {b: 1}\nc: *a\nd: {<<: *a, e: !!str 1}\nf: [1e-3, ~]\n"
    (tmp_path / "mine.yaml").write_text(body)
    (tmp_path / "empty.yaml").write_text("")
    assert check_config_file(tmp_path / "mine.yaml") == body
    assert check_config_file(tmp_path / "empty.yaml") == ""


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb"])
def test_a_text_that_cannot_be_written_to_a_file_is_refused(text: str) -> None:
    with pytest.raises(SettingError, match=r"^a='.*': expected text that can be encoded in UTF-8\.$"):
        resolve(OmegaConf.create({"a": text}))
