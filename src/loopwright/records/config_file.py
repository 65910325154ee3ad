"""`read_config`, which reads the recorded configuration of a run without Hydra and OmegaConf.

A run directory may come from an untrusted source. The values are built from the events of a YAML parser, so no object
is constructed for a tag, and no alias is expanded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml  # a dependency of omegaconf

from loopwright.errors import CheckpointError, on_one_line
from loopwright.records.series import read_record

CONFIG_FILE = "config.yaml"
_MAX_BYTES = 1_000_000
_MAX_VALUES = 20_000  # keys and values
_MAX_DEPTH = 100  # levels of nested lists and mappings
_MAX_NUMBER = 320  # characters of a number; longer numbers exceed the range of a float
_TAG = "tag:yaml.org,2002:"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the parser in C is 20 times faster


def read_config(run_dir: Path) -> dict[str, Any]:
    """Return the configuration in the ``config.yaml`` of a run. The result is empty if there is no such file.

    Raises:
        CheckpointError: if the file cannot be read, is a link, is not a regular file, has more than 1 MB, more than
            20,000 keys and values or more than 100 levels of nesting, contains a tag, an alias or a repeated key, or
            does not contain a YAML mapping.
    """
    file = run_dir / CONFIG_FILE
    data = read_record(file, _MAX_BYTES)
    if data is None:
        return {}
    try:
        found = _Builder(yaml.parse(data.decode(), Loader=_LOADER)).document()
        if not isinstance(found, dict):
            raise ValueError("no mapping")
    except (yaml.YAMLError, ValueError, ArithmeticError, LookupError) as error:
        problem = on_one_line(str(error), 200)
        raise CheckpointError(f"{on_one_line(str(file))}: expected a recorded configuration ({problem}).") from None
    return found


def config_leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the path and the value of each setting. A list is one value, and so is an empty mapping.

    >>> dict(config_leaves({"loop": {"max_steps": 5}, "model": {"hidden": [4, 4]}}))
    {'loop.max_steps': 5, 'model.hidden': [4, 4]}
    """
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from config_leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


class _Builder:
    """Builds lists, dicts and scalars from the events of a YAML parser.

    Its methods raise a `ValueError` for a file that exceeds a limit, and for a tag, an alias or a repeated key.
    """

    def __init__(self, events: Iterator[Any]) -> None:
        self._events = events
        self._num_values = 0
        self._resolver = yaml.resolver.Resolver()
        self._constructor = yaml.constructor.SafeConstructor()

    def document(self) -> Any:
        """Return the first document; None if the file is empty."""
        for event in self._events:
            if not isinstance(event, yaml.StreamStartEvent | yaml.DocumentStartEvent):
                return None if isinstance(event, yaml.StreamEndEvent) else self._value(event, 0)
        return None

    def _value(self, event: Any, depth: int) -> Any:
        self._num_values += 1
        if self._num_values > _MAX_VALUES or depth > _MAX_DEPTH:
            raise ValueError(f"more than {_MAX_VALUES:,} values or {_MAX_DEPTH} levels")
        if isinstance(event, yaml.AliasEvent) or event.tag is not None:
            raise ValueError(f"line {event.start_mark.line + 1}: a tag or an alias")
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event)
        if isinstance(event, yaml.SequenceStartEvent):
            items = []
            while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
                items.append(self._value(event, depth + 1))
            return items
        found: dict[str, Any] = {}
        while not isinstance(key := next(self._events), yaml.MappingEndEvent):
            if not isinstance(key, yaml.ScalarEvent) or key.tag is not None or key.value in found:
                raise ValueError(f"line {key.start_mark.line + 1}: a key that is repeated or not a word")
            found[key.value] = self._value(next(self._events), depth + 1)
        return found

    def _scalar(self, event: yaml.ScalarEvent) -> Any:
        """Return the value of a scalar. A time is returned as text."""
        text: str = event.value
        if not event.implicit[0]:  # quoted
            return text
        kind = self._resolver.resolve(yaml.ScalarNode, text, event.implicit).removeprefix(_TAG)
        if kind in ("int", "float") and len(text) > _MAX_NUMBER:
            raise ValueError(f"line {event.start_mark.line + 1}: a number of {len(text):,} characters")
        node = yaml.ScalarNode(f"{_TAG}{kind}", text)
        if kind == "int":
            return self._constructor.construct_yaml_int(node)
        if kind == "float":
            return self._constructor.construct_yaml_float(node)
        if kind == "bool":
            return self._constructor.construct_yaml_bool(node)
        return None if kind == "null" else text
