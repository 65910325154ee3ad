"""Checks of the YAML events of a configuration file, before a YAML loader reads the file.

A loader expands aliases, so nine lines can become 10⁹ values. A loader also builds objects for tags. A parser only
produces events, and the number of events is proportional to the size of the file.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from loopwright.errors import SettingError
from loopwright.experiment.gate.budget import MAX_CHARACTERS, MAX_VALUES, Budget
from loopwright.regular_files import read_regular, regular_size

_PLAIN_TAGS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "seq", "map"))


def check_config_files(directory: Path) -> None:
    """Refuse a directory with a ``.yaml`` file that is too large, too deeply nested or malformed, or contains tags.

    Raises:
        SettingError: if a file has more than 1 MB, more than 10,000 values after expansion of aliases or more than 100
            levels, contains tags, is not YAML, or is a pipe or a device. The message is one line with the name of the
            file and, where possible, the line number.
    """
    for file in sorted(directory.rglob("*.yaml")):
        if file.exists() and not file.is_dir():
            check_config_file(file)


def check_config_file(file: Path) -> None:
    """Check one file in the same way as `check_config_files`."""
    try:
        Budget().spend_text(str(file), regular_size(file), "bytes")
        _check_events(file, read_regular(file, MAX_CHARACTERS, follows_links=True).decode())
    except OSError as error:
        raise SettingError(str(file), f": {error.strerror}.") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = str(file) if mark is None else f"{file}:{mark.line + 1}"
        raise SettingError(place, f": {error.problem or error.context}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingError(str(file), f": expected YAML in UTF-8; {str(error).splitlines()[0]}.") from error


def _check_events(file: Path, text: str) -> None:
    budget = Budget(num_values=2 * MAX_VALUES)  # each entry of a mapping counts twice: key and value
    sizes: dict[str, int] = {}  # number of values under each anchor, after expansion of aliases
    # The anchor of each open container, and the number of values left in the budget before it.
    open_containers: list[tuple[str | None, int]] = []
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        where = f"{file}:{event.start_mark.line + 1}"
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise SettingError(where, f": alias {event.anchor!r}: no complete value above it has this anchor.")
            budget.spend_values(where, sizes[event.anchor])
        elif isinstance(event, (yaml.CollectionStartEvent, yaml.ScalarEvent)):
            if event.tag is not None and event.tag not in _PLAIN_TAGS:
                raise SettingError(where, f": tag {event.tag!r}: expected values without tags.")
            if isinstance(event, yaml.CollectionStartEvent):
                open_containers.append((event.anchor, budget.num_values))
                budget.check_depth(where, len(open_containers))
            elif event.anchor is not None:
                sizes[event.anchor] = 1
            budget.spend_values(where)
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, num_left_before = open_containers.pop()
            if anchor is not None:
                sizes[anchor] = num_left_before - budget.num_values
