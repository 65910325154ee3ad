"""The command ``loopwright explain KEY``, which explains one setting. It imports no torch."""

from __future__ import annotations

import json
from typing import Any

from loopwright.errors import SettingError, refuse
from loopwright.experiment.compose.composer import Composer
from loopwright.experiment.compose.origins import names_in
from loopwright.experiment.console.command_line import CommandLine
from loopwright.experiment.console.messages import output_width, tell
from loopwright.experiment.console.options import split_options
from loopwright.experiment.explain.explained import NO_VALUE, explained, value_at
from loopwright.experiment.explain.explanation import Explanation, argument_at, explain_value
from loopwright.experiment.explain.overview import Overview, explain_section
from loopwright.experiment.explain.signatures import NO_DEFAULT
from loopwright.experiment.explain.texts import explanation_text, overview_text

FORMATS = ("text", "json")


def explain(line: CommandLine, composer: Composer) -> int:
    """Explain a setting, or list the options of a group and the settings of a section.

    Args:
        line: command line, whose word ``what`` is the key.
        composer: composer of the configuration.

    Raises:
        SettingError: for an unknown key, a wrong option, and a wrong override.
    """
    assert line.what is not None
    options, overrides = split_options(line.overrides, {"format": "text"})
    if options["format"] not in FORMATS:
        raise refuse("format", options["format"], " or ".join(FORMATS))
    found = _found(line.what, composer, overrides)
    if options["format"] == "json":
        tell(json.dumps(_fields(found), indent=1, ensure_ascii=False), wraps=False)
    elif isinstance(found, Overview):
        tell(overview_text(found, output_width()), wraps=False)
    else:
        tell(explanation_text(found, output_width()), wraps=False)
    return 0


def _found(key: str, composer: Composer, overrides: list[str]) -> Explanation | Overview:
    path = names_in(key.replace("/", "."))
    config = explained(composer, overrides)
    value = value_at(config.values, path) if path else NO_VALUE
    if "/".join(path) in composer.groups or (isinstance(value, dict) and value):
        return explain_section(config, path, composer)
    if value is NO_VALUE:
        if value_at(config.raw, path) is not NO_VALUE:
            raise SettingError(f"explain {key}", ": is not used, because the loop only validates; use loop=training.")
        argument = argument_at(config, path)[1] if path else None
        if argument is None or argument.default is NO_DEFAULT:
            raise SettingError(f"explain {key}", f": no such key.{composer.hint(key, overrides, config.raw)}")
    return explain_value(config, path)


def _fields(value: Any) -> Any:
    """Convert nested named tuples to dicts."""
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: _fields(each) for name, each in value._asdict().items()}
    return [_fields(each) for each in value] if isinstance(value, tuple) else value
