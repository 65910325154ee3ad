"""No text of a run becomes markup or script of a page."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopwright.records.report.builder import element, json_block, render, visible
from records.report.pages import Page

HOSTILE = [
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "<!--",
    "]]>",
    "&lt;b&gt;&#60;",
    "\u202egnp.exe\u202c",
    "a\x00b\x1b[31m",
    "</title></style><svg/onload=alert(1)>",
    "\ud800",
]
texts = st.text(max_size=40) | st.sampled_from(HOSTILE)


@given(texts, texts)
def test_a_text_stays_a_text_and_an_attribute_stays_an_attribute(text: str, value: str) -> None:
    page = Page(render(element("p", text, title=value)))
    assert page.tags == ["p"] and page.is_balanced
    assert page.text == visible(text).replace("\r\n", "\n").replace("\r", "\n") or page.text == visible(text)
    assert page.attributes == [("title", visible(value) if value else None)]


@given(st.recursive(st.none() | st.booleans() | st.integers() | texts, lambda inner: st.lists(inner, max_size=3)))
def test_a_block_of_data_reads_back_and_contains_no_markup(value: object) -> None:
    block = json_block("data", value)
    inner = block.removeprefix('<script type="application/json" id="data">').removesuffix("</script>")
    assert not set(inner) & set("<>&") and inner.isascii()
    assert json.loads(inner) == value


@given(st.text(max_size=30))
def test_no_invisible_character_is_shown(text: str) -> None:
    assert all(c in "\t\n\r" or (ord(c) >= 32 and ord(c) not in range(0x202A, 0x202F)) for c in visible(text))


@pytest.mark.parametrize("tag", ["script", "style", "iframe", "object", "embed", "link", "base", "p onclick", "", "1"])
def test_elements_that_can_run_code_or_fetch_are_refused(tag: str) -> None:
    with pytest.raises(ValueError, match="not an element"):
        element(tag)


@pytest.mark.parametrize("name", ["onclick", "onLoad", "a b", "x>"])
def test_attributes_that_can_run_code_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not an attribute"):
        element("p", **{name: "x"})


@pytest.mark.parametrize(
    "address", ["javascript:alert(1)", "https://a.example/", "//a.example", "a.html", "data:text/html,x"]
)
def test_addresses_outside_the_page_are_refused(address: str) -> None:
    for name in ("href", "src"):
        with pytest.raises(ValueError, match="not an address"):
            element("a", **{name: address})
    assert Page(render(element("a", href="#metrics"))).attributes == [("href", "#metrics")]


def test_numbers_that_are_not_finite_are_refused_in_data() -> None:
    with pytest.raises(ValueError, match="JSON"):
        json_block("data", float("nan"))
