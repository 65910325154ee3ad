"""`check_config_file`, which checks the YAML events of a configuration file before a YAML loader reads the file.

A YAML loader expands aliases, so a file of nine lines can become 10⁹ values. A loader also builds objects for tags. A
YAML parser only yields events. The number of events is proportional to the size of the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from loopwright.errors import SettingError, on_one_line
from loopwright.experiment.gate.budget import MAX_CHARACTERS, MAX_VALUES, Budget
from loopwright.regular_files import read_regular, regular_size

# Maximum number of characters of a number. Longer whole numbers exceed the range of a float. Python cannot convert a
# number of 5,000 digits to a string. The time to parse a number such as 1:2:3 grows with the square of its length.
_MAX_NUMBER = 320
_MAX_REASON = 200  # maximum number of characters of a YAML loader's error message in a `SettingError`

_PLAIN_TAGS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "seq", "map"))


def check_config_file(file: Path) -> str:
    """Return the text of a configuration file. Refuse a file that is too large, too deeply nested or malformed.

    Raises:
        SettingError: if the file cannot be read, is not a regular file, has more than 1 MB, more than 10,000 values
            after expansion of aliases or more than 100 levels, contains a tag that is not in `_PLAIN_TAGS`, or is not
            YAML. The message is one line with the path of the file and, if known, the line number.
    """
    try:
        Budget().spend_text(str(file), regular_size(file), "bytes")
        data = read_regular(file, MAX_CHARACTERS)
    except OSError as error:
        raise SettingError(str(file), f": {error.strerror}.") from error
    with yaml_errors(file):
        text = data.decode()
        _check_events(file, text)
        return text


@contextmanager
def yaml_errors(file: Path) -> Iterator[None]:
    """Convert errors of a YAML parser or loader to a `SettingError`. The message is one line that names the file.

    For values such as ``2024-99-99`` or a number of 5,000 digits, a loader raises errors of many types.
    """
    try:
        yield
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = str(file) if mark is None else f"{file}:{mark.line + 1}"
        raise SettingError(place, f": {on_one_line(str(error.problem or error.context))}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingError(str(file), f": expected YAML in UTF-8; {str(error).splitlines()[0]}.") from error
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        if isinstance(error, SettingError):
            raise
        reason = on_one_line(f"{type(error).__name__}: {error}", _MAX_REASON)
        raise SettingError(str(file), f": has a value that cannot be read as YAML ({reason}).") from error


def _check_events(file: Path, text: str) -> None:
    budget = Budget(num_values=2 * MAX_VALUES)  # the key and the value of each entry of a mapping are counted
    sizes: dict[str, int] = {}  # number of values under each anchor, after expansion of aliases
    # The anchor of each open container, and the number of values left in the budget at the start of the container.
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
            if isinstance(event, yaml.ScalarEvent) and _is_long_number(event):
                raise SettingError(where, f": a number of {len(event.value):,} characters; expected a shorter one.")
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


def _is_long_number(event: yaml.ScalarEvent) -> bool:
    if len(event.value) <= _MAX_NUMBER:
        return False
    tag = event.tag or yaml.resolver.Resolver().resolve(yaml.ScalarNode, event.value, event.implicit)
    return str(tag).endswith((":int", ":float"))
