"""Configuration files are looked through as a stream of YAML events before anything loads them.

A loader expands aliases while it reads (nine lines can stand for 10⁹ values) and builds objects for tags; the events
cost what the file costs.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from loopwright.errors import SettingError
from loopwright.experiment.gate.tree import MAX_CHARACTERS, MAX_DEPTH, MAX_NODES

_PLAIN_TAGS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "seq", "map"))


def check_config_files(directory: Path) -> None:
    """Refuse a directory of which one ``.yaml`` file is too large, too deep, malformed or tagged.

    Raises:
        SettingError: one line with file and line number, for a file of more than 1 MB, for more than 10,000 values with
            aliases written out, for more than 100 levels, for tags, and for what is no YAML.
    """
    for file in sorted(directory.rglob("*.yaml")):
        if file.is_file():
            check_config_file(file)


def check_config_file(file: Path) -> None:
    """Refuse one file, as `check_config_files` does."""
    if file.stat().st_size > MAX_CHARACTERS:
        raise SettingError(str(file), f": expected at most {MAX_CHARACTERS} bytes.")
    try:
        _check_events(file, file.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        raise _at(file, error.problem_mark, f": {error.problem or error.context}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingError(str(file), f": expected YAML in UTF-8; {str(error).splitlines()[0]}.") from error


def _check_events(file: Path, text: str) -> None:
    num_values = 0
    sizes: dict[str, int] = {}  # of what each anchor stands for, aliases in it written out
    open_containers: list[tuple[str | None, int]] = []  # anchor, and the number of values before it
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = event.start_mark
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise _at(file, line, f": alias {event.anchor!r} of nothing above it.")
            num_values += sizes[event.anchor]
        elif isinstance(event, (yaml.CollectionStartEvent, yaml.ScalarEvent)):
            if event.tag is not None and event.tag not in _PLAIN_TAGS:
                raise _at(file, line, f": tag {event.tag!r}: expected values without tags.")
            if isinstance(event, yaml.ScalarEvent):
                if event.anchor is not None:
                    sizes[event.anchor] = 1
            else:
                open_containers.append((event.anchor, num_values))
                if len(open_containers) > MAX_DEPTH:
                    raise _at(file, line, f": expected at most {MAX_DEPTH} levels of nesting.")
            num_values += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, num_before = open_containers.pop()
            if anchor is not None:
                sizes[anchor] = num_values - num_before
        if num_values > 2 * MAX_NODES:  # keys are values here
            raise _at(file, line, f": expected at most {MAX_NODES} values, aliases written out.")


def _at(file: Path, mark: yaml.Mark | None, problem: str) -> SettingError:
    return SettingError(f"{file}:{mark.line + 1}" if mark is not None else str(file), problem)
