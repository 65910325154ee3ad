"""`comparison_lines`, which returns what ``loopwright compare`` prints of a few runs, with one column for each run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from loopwright.errors import on_one_line
from loopwright.experiment.reading.entry import origin_text
from loopwright.experiment.reading.side_by_side import Row, Section, side_by_side
from loopwright.experiment.reading.texts import ORIGIN_SETTINGS, UNKNOWN, number_text
from loopwright.experiment.sweep.tables import cell_text
from loopwright.loggers.lines import duration_text
from loopwright.records import RunRecord
from loopwright.records.comparison.metric_values import MetricValues
from loopwright.records.comparison.run_comparison import RunComparison
from loopwright.records.comparison.setup_differences import (
    ENVIRONMENT,
    NOT_SET,
    PACKAGES,
    SECTIONS,
    SOURCE,
    Difference,
    has_equal_values,
)
from loopwright.terminal_text import wrapped

MAX_ROWS = 40  # rows of a section, unless all rows are requested
MAX_NAMES = 5  # packages that are named in the line about packages
_MAX_METRICS = 8
_MAX_TEXT = 500  # characters of a value
_TARGET = "_target_"
_LEAST_DIGITS = 8  # digits of a shortened digest
_HEX = frozenset("0123456789abcdef")


def comparison_lines(found: RunComparison, *, width: int, shows_all: bool) -> list[str]:
    """Return the states and metrics of the runs, what differs between them, and what cannot be compared.

    Args:
        found: runs to compare.
        width: width of the terminal in characters.
        shows_all: whether every package, metric and setting that differs is shown.
    """
    shown = clear_differences(found)
    sections = [
        Section("", list(_run_rows(found, has_names=all(each.name != "name" for each in shown)))),
        _metric_section(found.metrics, found.runs, shows_all=shows_all),
        *difference_sections(shown, shows_all=shows_all),
    ]
    lines = side_by_side(found.labels, sections, width)
    return [*lines, *note_lines(found.differences, found.missing, found.problems, len(found.runs), width)]


def clear_differences(found: RunComparison) -> list[Difference]:
    """Return the differences without settings that other rows show.

    These are paths of checkpoints that are shown as origins of the runs, and classes of a group whose option differs.
    """
    has_origin = [origin_text(run) is not None for run in found.runs]
    groups = {f"{each.name}.{_TARGET}" for each in found.differences if each.name in found.runs[0].chosen}

    def is_origin(each: Difference) -> bool:
        pairs = zip(each.values, has_origin, strict=True)
        return each.name in ORIGIN_SETTINGS and all(value is None or has for value, has in pairs)

    return [each for each in found.differences if each.name not in groups and not is_origin(each)]


def difference_sections(differences: Sequence[Difference], *, shows_all: bool) -> list[Section]:
    """Return one section for each part of the runs that differs. Packages are counted unless all are shown."""
    sections: list[Section] = []
    for name in SECTIONS:
        found = [each for each in differences if each.section == name]
        if name == PACKAGES and found and not shows_all:
            environment = sections.pop()
            sections.append(Section(environment.title, environment.rows, [*environment.notes, packages_text(found)]))
            continue
        shown = found if shows_all else found[:MAX_ROWS]
        hidden = len(found) - len(shown)
        notes = [f"and {hidden:,} more; all=true shows all"] if hidden else []
        sections.append(Section(name, [Row(each.name, difference_texts(each)) for each in shown], notes))
    return sections


def packages_text(found: Sequence[Difference]) -> str:
    """Return a text such as ``3 packages differ: numpy, rich, torch; all=true shows versions``."""
    names = [on_one_line(each.name, 60) for each in found]
    if len(names) > MAX_NAMES:
        names = [*names[:MAX_NAMES], "…"]
    number = "1 package differs" if len(found) == 1 else f"{len(found):,} packages differ"
    return f"{number}: {', '.join(names)}; all=true shows the versions"


def difference_texts(difference: Difference) -> tuple[str, ...]:
    """Return the values of a difference as texts. Digests are shortened to as many digits as distinguish them."""
    values = difference.values
    digests = [each for each in map(_digest, values) if each is not None]
    num_distinct = len(set(digests))
    num_digits = next((n for n in range(_LEAST_DIGITS, 64, 4) if len({d[:n] for d in digests}) == num_distinct), 64)
    texts = [_value_text(each, num_digits) for each in values]
    by_text = {text: [v for v, t in zip(values, texts, strict=True) if t == text] for text in texts}
    return tuple(
        text if has_equal_values(by_text[text]) or not isinstance(value, str) else repr(value)
        for value, text in zip(values, texts, strict=True)
    )


def note_lines(
    differences: Sequence[Difference],
    missing: Sequence[tuple[str, Sequence[str]]],
    problems: Sequence[str],
    num_runs: int,
    width: int,
) -> list[str]:
    """Return lines about the parts that are equal, the parts that are not recorded, and files that cannot be read."""
    unknown = {name for name, _ in missing}
    unknown |= {SOURCE} if ENVIRONMENT in unknown else set()
    differing = {each.section for each in differences}
    equal = [name for name in SECTIONS if name not in differing | unknown | {PACKAGES}]
    if PACKAGES in differing and ENVIRONMENT in equal:
        equal.remove(ENVIRONMENT)
    notes = [f"Equal: {', '.join(equal)}."] if equal else []
    for name, labels in missing:
        text = f"{_listed(labels)} did not record it" if len(labels) < num_runs else "no record"
        notes.append(f"Not compared: {name} ({text}).")
    notes += [on_one_line(problem, _MAX_TEXT) for problem in problems]
    return [line for note in (["", *notes] if notes else []) for line in wrapped(note, width).split("\n")]


def seconds_text(seconds: float) -> str:
    """Return a duration, such as ``0.12 s`` or ``12:34``."""
    if not 0 < seconds < 1e10:
        return UNKNOWN
    return duration_text(seconds) if seconds >= 10 else f"{seconds:.2g} s"


def _run_rows(found: RunComparison, *, has_names: bool) -> Iterator[Row]:
    runs = found.runs
    names = tuple(run.name for run in runs)
    if has_names and len(set(names)) > 1 and names != found.labels:
        yield Row("name", names)
    yield Row("state", tuple(run.state for run in runs))
    yield Row("steps", tuple(_steps_text(run) for run in runs))
    yield Row("time", tuple(seconds_text(run.seconds) for run in runs))
    origins = [origin_text(run) for run in runs]
    if any(origins):
        yield Row("from", tuple(each or UNKNOWN for each in origins))


def _steps_text(run: RunRecord) -> str:
    is_short = run.num_steps is not None and run.global_step < run.num_steps
    return f"{run.global_step:,} of {run.num_steps:,}" if is_short else f"{run.global_step:,}"


def _metric_section(metrics: Sequence[MetricValues], runs: Sequence[RunRecord], *, shows_all: bool) -> Section:
    """Return the last value of each metric, and the best value of each metric that is not a training metric."""
    objectives = {run.objective_name for run in runs}
    rows = []
    shown = metrics if shows_all else metrics[:_MAX_METRICS]
    for each in shown:
        texts = cell_text.with_equal_decimals([number_text(value) for value in (*each.last, *each.best)])
        rows.append(Row(each.name, tuple(texts[: len(runs)]), is_number=True))
        if any(value is not None for value in each.best) and not each.name.startswith("train/"):
            rows.append(Row("  best", tuple(texts[len(runs) :]), is_number=True))
            if each.name in objectives:
                steps = tuple(UNKNOWN if step is None else f"{step:,}" for step in each.best_steps)
                rows.append(Row("  at step", steps))
    hidden = len(metrics) - len(shown)
    notes = [f"and {hidden:,} more metrics; all=true shows all"] if hidden else []
    return Section("metrics", rows, notes)


def _value_text(value: Any, num_digits: int) -> str:
    if value is NOT_SET:
        return UNKNOWN
    if isinstance(value, dict) and set(value) == {"num_lines", "sha256"}:
        number = value["num_lines"]
        return f"{number:,} line{'s' if number != 1 else ''} ({str(value['sha256'])[:num_digits]})"
    if _digest(value) is not None:
        return str(value)[:num_digits]
    return on_one_line(cell_text.value_text(value), _MAX_TEXT)


def _digest(value: Any) -> str | None:
    """Return the digest in a value; None if it contains none. A git commit has 40 digits, a SHA-256 has 64."""
    if isinstance(value, dict):
        value = value.get("sha256")
    is_digest = isinstance(value, str) and len(value) in (40, 64) and _HEX.issuperset(value)
    return value if is_digest else None


def _listed(labels: Sequence[str]) -> str:
    shown = [on_one_line(label, 100) for label in labels[:MAX_NAMES]]
    more = [f"{len(labels) - MAX_NAMES:,} more runs"] if len(labels) > MAX_NAMES else []
    return " and ".join([", ".join(shown), *more])
