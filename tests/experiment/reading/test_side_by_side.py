"""`side_by_side` shows every value, aligns decimal points, and is as wide as the terminal where values allow it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from loopwright.experiment.reading.side_by_side import Row, Section, side_by_side

TEXTS = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=60)
TABLES = st.integers(1, 4).flatmap(
    lambda num: st.tuples(
        st.lists(TEXTS, min_size=num, max_size=num),
        st.lists(
            st.builds(Row, TEXTS, st.tuples(*[TEXTS] * num), st.booleans()),
            max_size=5,
        ),
    )
)


def test_columns_are_aligned_and_numbers_have_their_points_below_one_another() -> None:
    rows = [
        Row("state", ("completed", "failed")),
        Row("loss", ("0.5", "12.25"), True),
        Row("  best", ("10.5", "–"), True),
    ]
    lines = side_by_side(["a", "b"], [Section("", rows[:1]), Section("metrics", rows[1:], ["and 2 more"])], 80)
    assert lines == [
        "           a           b",
        "  state    completed   failed",
        "",
        "metrics",
        "  loss      0.5        12.25",
        "    best   10.5        –",
        "  and 2 more",
    ]


def test_a_wide_value_makes_only_its_row_a_block() -> None:
    rows = [Row("path", ("x" * 50, "y")), Row("lr", ("1", "2"))]
    assert side_by_side(["one", "b"], [Section("", rows)], 80) == [
        "       one   b",
        "  path",
        f"    one   {'x' * 50}",
        "    b     y",
        "  lr   1     2",
    ]


def test_values_are_below_a_name_that_is_too_wide() -> None:
    rows = [Row("lr", ("1", "2")), Row("checkpoint.every_n_steps", ("3", "4")), Row("path", ("x" * 30, "y"))]
    assert side_by_side(["one", "b"], [Section("", rows)], 30) == [
        "       one   b",
        "  lr   1     2",
        "  checkpoint.every_n_steps",
        "       3     4",
        "  path",
        f"    one   {'x' * 30}",
        "    b     y",
    ]
    assert side_by_side(["one", "b"], [Section("", rows[:1])], 10) == ["  lr", "    one   1", "    b     2"]


@given(table=TABLES, width=st.integers(10, 200))
def test_every_value_is_shown_and_only_single_values_exceed_the_width(
    table: tuple[list[str], list[Row]], width: int
) -> None:
    headings, rows = table
    lines = side_by_side(headings, [Section("title", rows)], width)
    text = "\n".join(lines)
    assert all(cell in text for row in rows for cell in (row.name, *row.cells))
    longest = max(map(cell_len, (*headings, *(cell for row in rows for cell in (row.name, *row.cells)))))
    assert all(cell_len(line) <= max(width, 2 * longest + 60) for line in lines)


def test_hostile_texts_are_escaped() -> None:
    lines = side_by_side(["\x1b[31m"], [Section("", [Row("a\nb", ("\u202e",))])], 80)
    assert all(line.isprintable() for line in lines)
