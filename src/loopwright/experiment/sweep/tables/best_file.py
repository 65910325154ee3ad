"""`best_text`, which returns the overrides of the best group of a sweep as an experiment file."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from loopwright.experiment.console.command_line import shell_line
from loopwright.experiment.sweep.index import SweepIndex
from loopwright.experiment.sweep.tables.closing_lines import best_command

BEST_FILE = "best.yaml"
_PACKAGE = "# @package _global_"  # Hydra reads this line only if no other comment precedes it
_KEY = re.compile(r"[A-Za-z_][\w-]*(\.[A-Za-z_][\w-]*)*")  # a key that can be written as nested mappings
_PLAIN = re.compile(r"[A-Za-z_][\w./-]*")
_RESERVED = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n", "nan", "inf", "infinity"})


@dataclass(frozen=True, slots=True, kw_only=True)
class BestFileSettings:
    """Facts about the configuration that ``best.yaml`` needs and the index lacks.

    Args:
        read_value: function that returns the value of an override in Hydra's grammar.
        groups: names of the configuration groups, such as ``model``.
        experiment: experiment that the jobs use unless an override chooses another one; None if they use none.
    """

    read_value: Callable[[str], Any]
    groups: Collection[str] = ()
    experiment: str | None = None


def best_text(index: SweepIndex, num_threads: int | None, settings: BestFileSettings) -> str | None:
    """Return an experiment file with the overrides of the best group; None if there is no best group.

    The second line is a comment with the command that runs the best group. The first line must be the package of the
    file, as in every experiment. Overrides that an experiment file cannot express are listed in a comment.
    """
    command = best_command(index, num_threads)
    if command is None or index.best is None:
        return None
    content = _Content(experiments=[] if settings.experiment is None else [settings.experiment])
    for word in index.best.overrides:
        content.add(word, settings)
    threads = content.values.get("device", {})
    if num_threads is not None and "num_threads" not in threads:
        content.set("device.num_threads", num_threads)
    use = shell_line(["loopwright", "--config-dir=CONF", *index.trust, "experiment=best", *content.left_out])
    return "\n".join(
        [
            _PACKAGE,
            f"# {command}",
            f"# As an experiment: copy this file to CONF/experiment/best.yaml, then {use}",
            *([f"# Not in this file: {shell_line(content.left_out)}"] if content.left_out else []),
            "defaults:",
            *(f"  - {_inline(name)}" for name in content.experiments),
            *(f"  - {key}: {_inline(value)}" for key, value in content.options.items()),
            "  - _self_",
            *(["", *_block(content.values)] if content.values else []),
            "",
        ]
    )


@dataclass(slots=True)
class _Content:
    """The content of ``best.yaml``, collected from overrides.

    Attributes:
        experiments: experiments whose settings come before the settings of this file.
        options: chosen options, by the key in the list of defaults, such as ``override /model``.
        values: values as nested mappings.
        left_out: overrides that an experiment file cannot express.
    """

    experiments: list[Any]
    options: dict[str, Any] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def add(self, word: str, settings: BestFileSettings) -> None:
        """Add an override."""
        key = word.partition("=")[0].strip()
        name = key.lstrip("+")
        is_added = key != name and not key.startswith("++")
        if not _KEY.fullmatch(name.replace("/", "_")) or "=" not in word:
            self.left_out.append(word)
        elif name == "experiment":
            value = settings.read_value(word)
            self.experiments = value if isinstance(value, list) else [] if value is None else [value]
        elif name in settings.groups:
            self.options[f"/{name}" if is_added else f"override /{name}"] = settings.read_value(word)
        elif "/" in name:
            self.left_out.append(word)
        else:
            self.set(name, settings.read_value(word))

    def set(self, key: str, value: Any) -> None:
        """Set a value by its key. A mapping is merged into an existing mapping, as in Hydra."""
        node = self.values
        *parents, last = key.split(".")
        for parent in parents:
            if not isinstance(node.get(parent), dict):
                node[parent] = {}
            node = node[parent]
        node[last] = _merged(node.get(last), value)


def _merged(before: Any, value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    merged = dict(before) if isinstance(before, Mapping) else {}
    return {**merged, **{key: _merged(merged.get(key), each) for key, each in value.items()}}


def _block(values: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """Yield the lines of nested mappings."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield f"{indent}{_inline(key)}:"
            yield from _block(value, f"{indent}  ")
        else:
            yield f"{indent}{_inline(key)}: {_inline(value)}"


def _inline(value: Any) -> str:
    """Return a value as YAML on one line. Texts that YAML or Hydra could read as another type are in quotes."""
    if isinstance(value, str):
        if _PLAIN.fullmatch(value) and value.isascii() and value.lower() not in _RESERVED:
            return value
        quoted: str = yaml.safe_dump(value, default_style='"', width=math.inf, allow_unicode=True)
        return quoted.rstrip("\n")
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_inline(key)}: {_inline(each)}' for key, each in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_inline, value))}]"
    if isinstance(value, float) and math.isfinite(value):
        text = repr(value)
        return text.replace("e", ".0e") if "." not in text else text  # YAML 1.1 reads 1e-05 as a text
    dumped: str = yaml.safe_dump(value)
    return dumped.removesuffix("...\n").rstrip("\n")
