"""Functions that parse and quote overrides in Hydra's grammar, and split the overrides of a sweep into jobs."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

# Hydra's own function splits a sweep into jobs, so that Loopwright runs exactly the jobs that Hydra would run.
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException

from loopwright.errors import SettingError
from loopwright.experiment.console.messages import joined, one_line


def parse_overrides(overrides: Sequence[str], config_loader: ConfigLoader | None = None) -> list[Override]:
    """Parse each override.

    Args:
        overrides: overrides as typed.
        config_loader: loader that lists the options of a group. Overrides with ``glob`` need it.

    Raises:
        SettingError: if an override cannot be parsed or a key is given twice. The message is one line that names all
            such overrides.
    """
    parser = OverridesParser.create()
    parsed: list[Override] = []
    problems: list[str] = []
    for word in overrides:
        try:
            override = parser.parse_override(word)
            override.config_loader = config_loader
            parsed.append(override)
        except (HydraException, RecursionError) as error:
            detail = one_line(str(error).split("\nSee https")[0]) or "too deeply nested"
            remedy = _quoted_word(word, parser)
            expected = "expected key=value, quoted where needed" if remedy is None else f"use {remedy}"
            problems.append(f"{one_line(word)}: cannot be read ({detail}); {expected}.")
    problems += _given_twice(parsed)
    if problems:
        raise SettingError(joined(problems), "")
    return parsed


def _quoted_word(word: str, parser: OverridesParser) -> str | None:
    """Return what to type in a shell for a word whose value must be quoted; None for a value such as a list."""
    key, _, value = word.partition("=")
    if not value or not word.isprintable() or any(char in value for char in "[]{}'\"\\"):
        return None
    if value == "~" or value.startswith("~/"):  # the shell expands the variable, and no longer the tilde
        return f'"{key}=$HOME{value[1:]}"'
    quoted_word = f'{key}="{value}"'
    try:
        parser.parse_override(quoted_word)
    except (HydraException, RecursionError):
        return None
    return shlex.quote(quoted_word)


def _given_twice(parsed: Sequence[Override]) -> list[str]:
    seen: set[tuple[str, str | None]] = set()
    problems = []
    for override in parsed:
        key = (override.key_or_group, override.package)
        if key in seen:
            problems.append(f"{override.input_line}: {override.key_or_group} is given twice; give it once.")
        seen.add(key)
    return problems


def split_jobs(overrides: Sequence[str], config_loader: ConfigLoader | None = None) -> list[list[str]]:
    """Return the overrides of each job of a sweep, in the order in which the sweep runs the jobs.

    The overrides of each job begin with the overrides of Hydra's own settings, as in Hydra's sweeper.

    Raises:
        SettingError: for an override that cannot be parsed, for a sweep without jobs, and for a sweep over Hydra's own
            settings or over an interval.
    """
    parsed = parse_overrides(overrides, config_loader)
    hydra = [override for override in parsed if override.is_hydra_override()]
    for override in hydra:
        if override.is_sweep_override():
            raise SettingError(str(override.input_line), ": Hydra's own settings cannot be swept.")
    try:
        batches = BasicSweeper.split_arguments([o for o in parsed if not o.is_hydra_override()], None)
    except (HydraException, ValueError, TypeError) as error:
        if "ConfigLoader is not set" in str(error):
            problem = ": glob() cannot be used with --config-dir; list the options, separated by commas."
            raise SettingError("--multirun", problem) from None
        raise SettingError("--multirun", f": {one_line(error)}.") from None
    jobs = [job for batch in batches for job in batch]
    if not jobs:
        raise SettingError("--multirun", ": the sweep has no jobs, because one of its ranges is empty.")
    return [[str(override.input_line) for override in hydra] + job for job in jobs]


def quoted(text: str) -> str:
    """Quote a string for use as a value in an override. Hydra parses the result to exactly the same string."""
    return str(QuotedString(text=text.replace("${", "\\${"), quote=Quote.single).with_quotes())


def with_value(overrides: Sequence[str], key: str, value: str) -> list[str]:
    """Return the overrides without any value of ``key``, followed by ``key=value`` with the value quoted."""
    kept = [word for word in overrides if word.lstrip("+").split("=", 1)[0] != key]
    return [*kept, f"{key}={quoted(value)}"]
