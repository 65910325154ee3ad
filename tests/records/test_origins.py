"""`read_origins` reads the summaries of this version and of earlier versions, and ignores what no run writes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopwright.records.origins import Origin, as_record, digests_of, read_origins

RUN = "outputs/digits/2026-12-01_09-15-05_c623ba"
DIGEST = "0123456789abcdef" * 4
ORIGINS = st.builds(
    Origin,
    path=st.text(st.characters(exclude_characters="\0"), min_size=1, max_size=20),
    sha256=st.none() | st.just(DIGEST),
    run=st.sampled_from(["c623ba", "1a2b3c/0"]),
    step=st.integers(0, 2**62),
)


@given(origins=st.lists(ORIGINS, max_size=3, unique_by=lambda origin: origin.path))
def test_written_origins_are_read_back(origins: list[Origin]) -> None:
    summary = {"origins": {origin.path: as_record(origin) for origin in origins}}
    assert read_origins(summary) == origins
    assert digests_of(summary) == {origin.path: origin.sha256 for origin in origins}


def test_a_summary_of_an_earlier_version_has_the_run_and_the_step_in_the_path() -> None:
    paths = [f"{RUN}/checkpoints/step_00002000", f"{RUN}_sweep/3/checkpoints/step_00000010", "imported/weights"]
    first, job, imported = read_origins({"origins": dict.fromkeys(paths, DIGEST)})
    assert (first.run, first.step, first.sha256, str(first.run_dir)) == ("c623ba", 2000, DIGEST, RUN)
    assert (job.run, job.step) == ("c623ba/3", 10)
    assert (imported.run, imported.step, imported.run_dir) == (None, None, None)
    assert [each.text for each in (first, job, imported)] == [
        "c623ba, step 2,000",
        "c623ba/3, step 10",
        "imported/weights",
    ]


@pytest.mark.parametrize(
    ("recorded", "found"),
    [
        (None, []),
        ([1], []),
        ("text", []),
        ({"": DIGEST, "a\0b": DIGEST, "a" * 5000: DIGEST}, []),
        ({"a": 3}, [("a", None, None, None)]),
        ({"a": {"sha256": "0" * 63, "run": 3, "step": -1}}, [("a", None, None, None)]),
        ({"a": {"sha256": [], "run": "\x1b[31m", "step": 2**70}}, [("a", None, "\\x1b[31m", None)]),
        ({"a": {"sha256": DIGEST, "run": "x", "step": True}}, [("a", DIGEST, "x", None)]),
        ({"a/checkpoints/step_" + "9" * 30: None}, [("a/checkpoints/step_" + "9" * 30, None, "a", None)]),
    ],
)
def test_values_that_no_run_writes_are_ignored(recorded: Any, found: list[Any]) -> None:
    read = read_origins({"origins": recorded})
    assert [(each.path, each.sha256, each.run, each.step) for each in read] == found
