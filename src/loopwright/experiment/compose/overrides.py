"""Functions that parse and quote overrides in Hydra's grammar, and split the overrides of a sweep into jobs."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from typing import Any

# Hydra's own function splits a sweep into jobs. Loopwright therefore runs exactly the jobs that Hydra would run.
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import OmegaConf

from loopwright.errors import SettingError
from loopwright.experiment.console.command_line import shell_line
from loopwright.experiment.console.messages import joined, one_line
from loopwright.experiment.gate.hydra_tree import override_key
from loopwright.experiment.gate.references import is_only_reference
from loopwright.experiment.gate.resolve import resolve

SEARCH = "hparams_search"  # group whose files set settings of a sweep
_SWEEP = "sweep"


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
    """Return a shell word in which the value of an override is quoted, or None if quotes do not make it valid."""
    key, _, value = word.partition("=")
    if not value or not word.isprintable() or any(char in value for char in "[]{}'\"\\"):
        return None
    if value == "~" or value.startswith("~/"):  # a shell expands $HOME in double quotes, but not the tilde
        return f'"{key}=$HOME{value[1:]}"'
    quoted_word = f'{key}="{value}"'
    try:
        parser.parse_override(quoted_word)
    except (HydraException, RecursionError):
        return None
    return shell_line([quoted_word])


def _given_twice(parsed: Sequence[Override]) -> list[str]:
    seen: set[tuple[str, str | None]] = set()
    problems = []
    for override in parsed:
        key = (override.key_or_group, override.package)
        if key in seen:
            problems.append(f"{override.input_line}: {override.key_or_group} is given twice; give it once.")
        seen.add(key)
    return problems


def typed_names(overrides: Sequence[str], section: str, names: Sequence[str]) -> list[str]:
    """Return the names in ``section`` that the overrides set, such as ``max_steps`` for ``loop={max_steps: 5}``."""
    found: set[str] = set()
    for override in parse_overrides(overrides):
        top, _, name = override.key_or_group.partition(".")
        if top != section or override.is_delete():
            continue
        value = None if name else override.value()
        found.update([name] if name else map(str, value) if isinstance(value, dict) else [])
    return [name for name in names if name in found]


def split_jobs(overrides: Sequence[str], config_loader: ConfigLoader | None = None) -> list[list[str]]:
    """Return the overrides of each job of a sweep, in the order of the jobs.

    The overrides of each job begin with the overrides of Hydra's own settings.

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


def sweep_words(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the overrides of the settings of a sweep, and all other overrides.

    Raises:
        SettingError: if an override cannot be parsed, if a key is given twice, and if a setting of the sweep is swept.
            The message is one line that names all such overrides.
    """
    parsed = parse_overrides(overrides)
    own = [word for word in overrides if _is_for_sweep(word)]
    swept = [str(each.input_line) for each in parsed if each.input_line in own and each.is_sweep_override()]
    if swept:
        raise SettingError(joined([f"{word}: settings of the sweep cannot be swept." for word in swept]), "")
    return own, [word for word in overrides if word not in own]


def refuse_sweep_words(overrides: Sequence[str]) -> None:
    """Refuse overrides of settings of a sweep, for a run outside a sweep.

    Raises:
        SettingError: for the first such override.
    """
    for word in overrides:
        if _is_for_sweep(word):
            raise SettingError(override_key(word), ": has an effect only with -m.")


def _is_for_sweep(override: str) -> bool:
    key = override_key(override)
    return key in (_SWEEP, SEARCH) or key.startswith(f"{_SWEEP}.")


def first_options(overrides: Sequence[str], groups: Container[str]) -> list[str]:
    """Return the overrides that choose options of ``groups``. For a swept group, return its first option only."""
    chosen = []
    for override in parse_overrides(overrides):
        key = override.key_or_group
        if key not in groups:
            continue
        if not override.is_sweep_override():
            chosen.append(str(override.input_line))
        elif isinstance(override.value(), ChoiceSweep):
            chosen += [f"{key}={text}" for text in list(override.sweep_string_iterator())[:1]]
    return chosen


def quoted(text: str) -> str:
    """Quote a string for use as a value in an override. A composed configuration contains exactly this string."""
    return in_quotes(without_interpolation(text))


def without_interpolation(text: str) -> str:
    """Escape each interpolation in ``text``. OmegaConf then reads the result as exactly the string ``text``."""
    # OmegaConf reads a backslash and ``${`` as a literal ``${``. Other backslashes directly before ``${`` are doubled.
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", text)


def in_quotes(text: str) -> str:
    """Quote a string for Hydra's grammar. OmegaConf still reads ``${`` in the result as an interpolation."""
    return str(QuotedString(text=text, quote=Quote.single).with_quotes())


def typed_value(override: Override) -> Any:
    """Return the value that Hydra would compose for an override of a single value.

    A reference such as ``${oc.env:NAME}`` to a variable that the user must allow is not resolved, because a recorded
    configuration contains the reference.

    Raises:
        SettingError: for an interpolation that refers to another setting.
    """
    value = override.value()
    if "${" not in str(override.input_line) or is_only_reference(value):
        return value
    try:
        return resolve(OmegaConf.create({"value": value}))["value"]
    except SettingError:
        problem = ": expected a value that refers to no other setting; for the text ${, type a backslash before ${."
        raise SettingError(str(override.input_line), problem) from None


def override_text(key: str, value: str) -> str:
    """Return an override that sets ``key`` to a string. Quote the string only if Hydra's grammar needs quotes."""
    plain = f"{key}={value}"
    try:
        override = OverridesParser.create().parse_override(plain)
        is_same = not override.is_sweep_override() and override.value() == value and "${" not in value
    except HydraException:
        is_same = False
    return plain if is_same else f"{key}={quoted(value)}"
