"""The command ``loopwright config``, which prints the values of all settings. It imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import yaml  # a dependency of omegaconf

from loopwright.errors import SettingError, printable, refuse
from loopwright.experiment.compose.composer import Composer
from loopwright.experiment.compose.value_text import value_text
from loopwright.experiment.console.command_line import CommandLine
from loopwright.experiment.console.list_files import FORMATS, formatted
from loopwright.experiment.console.messages import tell
from loopwright.experiment.console.options import split_options
from loopwright.experiment.explain.error_origin import with_origin
from loopwright.experiment.explain.explained import Explained, explained_job, leaves
from loopwright.experiment.explain.explanation import set_by
from loopwright.experiment.explain.texts import origins_text
from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.jobs.job import compose_jobs

_OPTIONS = {"origins": "false", "format": "text"}
FIELDS = ("key", "value", "origin")


def print_config(line: CommandLine, composer: Composer, trust: Trust) -> int:
    """Print the configuration as YAML. With ``origins=true``, print each setting with its value and its origin.

    Raises:
        SettingError: for a wrong option, and for a wrong setting.
    """
    options, overrides = split_options(line.overrides, _OPTIONS)
    if options["origins"] not in ("true", "false"):
        raise refuse("origins", options["origins"], "true or false")
    if options["format"] not in FORMATS:
        raise refuse("format", options["format"], f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    if options["format"] != "text" and options["origins"] == "false":
        raise SettingError("format", f"={options['format']}: has an effect only with origins=true.")
    try:
        (job,) = compose_jobs(composer, [overrides], trust, finds_changes=False)
    except SettingError as error:
        raise with_origin(error, composer, overrides) from error.__cause__
    if options["origins"] == "false":
        tell(_yaml_text(job.recorded), wraps=False)
        return 0
    rows = origin_rows(explained_job(composer, job))
    if options["format"] == "text":
        tell(origins_text((row["key"], value_text(row["value"]), row["origin"]) for row in rows), wraps=False)
    else:
        tell(formatted(str(options["format"]), FIELDS, rows), wraps=False)
    return 0


def origin_rows(config: Explained) -> list[dict[str, Any]]:
    """Return the path, the value and the origin of each setting of a configuration."""
    return [
        {"key": ".".join(path), "value": value, "origin": set_by(config, path)} for path, value in leaves(config.values)
    ]


def _yaml_text(config: Mapping[str, Any]) -> str:
    """Return a configuration as YAML. If a character is not printable, all characters outside ASCII are escaped."""
    dump = partial(yaml.safe_dump, dict(config), sort_keys=False, width=120)
    text: str = dump(allow_unicode=True)
    return (text if printable(text) == text else str(dump(allow_unicode=False))).rstrip("\n")
