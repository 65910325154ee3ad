"""References to environment variables are recorded and replaced again, and their values are masked in text."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from loopwright.errors import SettingError
from loopwright.experiment.gate.masking import mask, masked_output
from loopwright.experiment.gate.references import expand_recorded, find_references, is_only_reference, put_back
from loopwright.experiment.gate.resolve import resolve
from loopwright.experiment.gate.resolvers import keeping_references, lock_resolvers

NAME, VALUE = "GATE_TEST_TOKEN", "swordfish-99"
ALLOWED = (NAME, "GATE_TEST_UNSET", "GATE_TEST_NUMBER")


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(NAME, VALUE)
    monkeypatch.setenv("GATE_TEST_NUMBER", "12345678")
    monkeypatch.setenv("RANK", "0")
    yield
    OmegaConf.clear_resolvers()


def both(text: str) -> tuple[Any, Any]:
    """Resolve a configuration with the value of the variable, and with the reference."""
    config = OmegaConf.create(text)
    lock_resolvers(ALLOWED)
    value = resolve(config)
    with keeping_references(ALLOWED):
        return value, resolve(config)


@pytest.mark.parametrize(
    ("text", "value", "recorded"),
    [
        ("${oc.env:N}", "V", "${oc.env:N}"),
        ("x${oc.env:N}y${oc.env:N}", "xVyV", "x${oc.env:N}y${oc.env:N}"),
        ("${b}", "V", "${oc.env:N}"),
        ("${oc.env:N,default}", "V", "${oc.env:N}"),
        ("${oc.env:GATE_TEST_UNSET,d}", "d", "d"),
        ("${oc.env:RANK}/${oc.env:N}", "0/V", "0/${oc.env:N}"),
        ("[{c: '${oc.env:N}'}]", [{"c": "V"}], [{"c": "${oc.env:N}"}]),
        ("${oc.decode:${oc.env:GATE_TEST_NUMBER}}", None, None),
        ("\\${oc.env:N}", None, None),
        ("\\${oc.env:HOME}", None, None),
    ],
)
def test_a_recorded_text_gives_the_same_value_again(text: str, value: Any, recorded: Any) -> None:
    def with_names(tree: Any) -> Any:
        return json.loads(json.dumps(tree).replace("V", VALUE).replace("env:N", f"env:{NAME}"))

    node = text if text.startswith("[") else "'" + text.replace("'", "''") + "'"
    values, texts = both(f"b: '${{oc.env:{NAME}}}'\na: {node.replace('env:N', f'env:{NAME}')}")
    if value is None:
        with pytest.raises(SettingError, match=r"^a(\[0\])?: "):
            find_references(values, texts, ALLOWED)
        return
    assert values["a"] == with_names(value)
    references = find_references(values, texts, ALLOWED)
    written = put_back(values, references)
    assert written["a"] == with_names(recorded)
    assert expand_recorded(written, [NAME]) == (values, references)


def test_a_changed_value_is_recorded_as_it_is() -> None:
    config, references = expand_recorded({"a": f"${{oc.env:{NAME}}}", "b": 1}, [NAME])
    assert put_back(config | {"a": "other", "b": 2}, references) == {"a": "other", "b": 2}


def test_a_recorded_reference_is_read_only_if_its_variable_is_allowed_and_set() -> None:
    with pytest.raises(SettingError, match=rf"^a\[0\]\.b: oc\.env:{NAME}: .*; add --allow-env {NAME} only if"):
        expand_recorded({"a": [{"b": f"x${{oc.env:{NAME}}}"}]}, ["OTHER"])
    with pytest.raises(SettingError, match=r"^a: oc\.env:GATE_TEST_UNSET: not set, and no default is given\.$"):
        expand_recorded({"a": "${oc.env:GATE_TEST_UNSET}"}, ["GATE_TEST_UNSET"])
    with pytest.raises(SettingError, match=r"expected the name of an environment variable\.$"):
        expand_recorded({"a": "${oc.env:rm -rf ~; x}"}, [NAME])


def test_references_that_multiply_a_long_value_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, "x" * 100_000)
    with pytest.raises(SettingError, match="characters of text"):
        expand_recorded({"a": f"${{oc.env:{NAME}}}" * 11}, [NAME])
    with pytest.raises(SettingError, match="characters of text"):
        expand_recorded({"a": [f"${{oc.env:{NAME}}}"] * 11}, [NAME])


def test_a_typed_reference_is_told_apart_from_other_interpolations() -> None:
    assert is_only_reference("x/${oc.env:A}/${oc.env:B}")
    for text in ("x", "${oc.env:RANK}", "${oc.env:A}${b}", "\\${oc.env:A}", "${oc.decode:${oc.env:A}}", 3, None):
        assert not is_only_reference(text)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=8, max_size=40))
def test_a_value_is_masked_in_each_form_of_a_message(value: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(NAME, value)
        forms = [value, repr(value), json.dumps(value), json.dumps(value, ensure_ascii=False)]
        forms.append(yaml.safe_dump([value], allow_unicode=True, width=10**9))
        for text in forms:
            assert value not in mask(f"a={text}: expected b", [NAME]) or value in f"${{oc.env:{NAME}}}"


def test_a_truncated_value_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, "secret-" * 20)
    assert mask(f"a={('secret-' * 20)[:79]}…: b", [NAME]) == f"a=${{oc.env:{NAME}}}…: b"


def test_a_short_value_is_no_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, "data")
    assert mask("data.path=3", [NAME, "GATE_TEST_UNSET"]) == "data.path=3"


def test_what_is_printed_is_masked(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout
    with masked_output([NAME]):
        print("out", VALUE)
        print("error", VALUE, file=sys.stderr)
        assert (sys.stdout.isatty(), sys.stdout.encoding) == (before.isatty(), before.encoding)
        with pytest.raises(io.UnsupportedOperation):
            sys.stdout.read()
    assert sys.stdout is before
    assert capsys.readouterr() == (f"out ${{oc.env:{NAME}}}\n", f"error ${{oc.env:{NAME}}}\n")
