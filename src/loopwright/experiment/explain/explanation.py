"""`explain_value`, which collects what is known about one setting."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from loopwright.experiment.compose.origins import Names, Writer
from loopwright.experiment.compose.value_text import value_text
from loopwright.experiment.console.command_line import shell_line
from loopwright.experiment.explain.change import changed_value
from loopwright.experiment.explain.explained import MISSING, NO_VALUE, Explained, value_at
from loopwright.experiment.explain.signatures import NO_DEFAULT, Argument, Signature, read_signature
from loopwright.experiment.explain.understood import understood
from loopwright.experiment.gate.tree import TARGET

NOT_READ = "not read"  # type of an argument of a class that is not part of Loopwright

_JOB_SETTINGS = "loopwright.experiment.jobs.job_settings.JobSettings"
_SWEEP_SETTINGS = {
    ("sweep",): "loopwright.experiment.sweep.settings.SweepSettings",
    ("sweep", "slurm"): "loopwright.experiment.sweep.settings.SlurmSettings",
}
_KEY = re.compile(r"\$\{(\.*)([A-Za-z_]\w*(?:[.\[][^${}]*)?)\}")
_IS_DEFAULT = re.compile(r"^default\b;?\s*")
_NOT_CAPITALISED = ("true", "false", "null")


class Source(NamedTuple):
    """A value, and the file and line, the override or the class that sets it."""

    value: str
    by: str


class Read(NamedTuple):
    """A setting that an interpolation reads, with its value and its origin."""

    key: str
    value: str
    set_by: str


class Explanation(NamedTuple):
    """What is known about one setting.

    Attributes:
        key: path of the setting.
        value: value in one line of YAML.
        type: types that are accepted; `NOT_READ` if the class is not part of Loopwright; empty if unknown.
        meaning: sentence that describes the setting; empty if unknown.
        set_by: file and line, or override, that sets the value.
        instead_of: values that the value replaces, from the last to the first.
        reads: settings that the value reads.
        understood: what the value means in steps, or None.
        change: override that changes the value.
    """

    key: str
    value: str
    type: str
    meaning: str
    set_by: str
    instead_of: tuple[Source, ...]
    reads: tuple[Read, ...]
    understood: str | None
    change: str


def explain_value(config: Explained, path: Names) -> Explanation:
    """Collect what is known about the setting at ``path``. It may also be an argument that no file sets."""
    signature, argument = argument_at(config, path)
    value = value_at(config.values, path)
    is_set = value is not NO_VALUE
    if not is_set:
        assert argument is not None
        value = argument.default
    writers = config.origins.writers(path)
    plus = "" if is_set else "+"
    new_value = changed_value(value, argument)
    return Explanation(
        key=".".join(path),
        value=shown_value(value),
        type=_type(config, path, signature, argument),
        meaning=meaning_of(writers, argument, signature, path, value),
        set_by=_set_by(config, path, value, signature, argument) if is_set else _default_of(signature),
        instead_of=_instead_of(config, path, value, signature, argument) if is_set else (),
        reads=_reads(config, path),
        understood=understood(config, path) if is_set else None,
        change=shell_line([f"{plus}{'.'.join(path)}={new_value}"]),
    )


def shown_value(value: Any) -> str:
    """Format a value in one line. A value that must be given is marked."""
    return f"{MISSING} (a value must be given)" if value == MISSING else value_text(value)


def argument_at(config: Explained, path: Names) -> tuple[Signature | None, Argument | None]:
    """Return the signature to which the setting at ``path`` belongs, and its argument. None if they are not read."""
    section = path[:-1]
    node = value_at(config.values, section)
    target = node.get(TARGET) if isinstance(node, Mapping) else None
    if isinstance(target, str):
        signature = read_signature(target)
    elif not section:
        signature = read_signature(_JOB_SETTINGS)
    elif section in _SWEEP_SETTINGS:
        signature = read_signature(_SWEEP_SETTINGS[section])
    else:
        signature = _settings_group(config, section)
    return signature, None if signature is None else signature.arguments.get(path[-1])


def _settings_group(config: Explained, section: Names) -> Signature | None:
    """Return the signature of a group of settings, such as ``device.waits``, which names no class."""
    node = value_at(config.values, section[:-1])
    target = node.get(TARGET) if isinstance(node, Mapping) else None
    if not isinstance(target, str):
        return None
    _, argument = argument_at(config, section)
    if argument is None or not argument.annotation.isidentifier():
        return None
    return read_signature(f"{target.rpartition('.')[0]}.{argument.annotation}")


def _set_by(config: Explained, path: Names, value: Any, signature: Signature | None, argument: Argument | None) -> str:
    origin, writers = set_by(config, path), config.origins.writers(path)
    is_only_default = len(writers) == 1 and not writers[0].is_override and path not in config.settled
    has_default = argument is not None and _has_default(path, signature, argument)
    if is_only_default and has_default and argument is not None and _same(argument.default, value):
        return f"{origin}, equal to the {_default_of(signature)}"
    return origin


def set_by(config: Explained, path: Names) -> str:
    """Return the file and line, or the override, that sets the value at ``path``."""
    writers, reason = config.origins.writers(path), config.settled.get(path)
    if not writers:
        return f"Loopwright: {reason}" if reason else "Loopwright"
    origin = writers[-1]
    if reason and path == ("name",):
        return f"{origin.place}; {reason}"
    if reason:
        return f"Loopwright: {reason}"
    return f"{origin.place}, as {origin.text}" if _is_interpolation(origin) and not origin.is_override else origin.place


def _is_interpolation(writer: Writer) -> bool:
    return "${" in writer.text


def _instead_of(
    config: Explained, path: Names, value: Any, signature: Signature | None, argument: Argument | None
) -> tuple[Source, ...]:
    writers = config.origins.writers(path)
    is_replaced = path in config.settled and path != ("name",)
    earlier = writers if is_replaced else writers[:-1]
    found = [Source(value=writer.text, by=writer.place) for writer in reversed(earlier)]
    last = found[-1].value if found else value_text(value)
    if argument is not None and _has_default(path, signature, argument) and value_text(argument.default) != last:
        found.append(Source(value=value_text(argument.default), by=_default_of(signature)))
    return tuple(found)


def _has_default(path: Names, signature: Signature | None, argument: Argument | None) -> bool:
    """Return whether a class has a default that is used if no file sets the value."""
    if signature is None or argument is None or argument.default is NO_DEFAULT:
        return False
    return len(path) > 1 and path[0] != "sweep"


def _default_of(signature: Signature | None) -> str:
    return "default" if signature is None else f"default of {signature.name}"


def _same(default: Any, value: Any) -> bool:
    """Return whether two values are equal and have equal types. The frequencies 1 and 1.0 differ."""
    return value_text(default) == value_text(value)


def _type(config: Explained, path: Names, signature: Signature | None, argument: Argument | None) -> str:
    if argument is not None:
        return argument.annotation
    section = value_at(config.values, path[:-1])
    is_foreign = signature is None and isinstance(section, Mapping) and TARGET in section
    return NOT_READ if is_foreign and not path[-1].startswith("_") else ""


def meaning_of(
    writers: Sequence[Writer], argument: Argument | None, signature: Signature | None, path: Names, value: Any
) -> str:
    """Return the comment of the newest line that has one, otherwise the entry of the docstring; empty if unknown."""
    comments = [_IS_DEFAULT.sub("", writer.comment) for writer in reversed(writers)]
    text = next(filter(None, comments), "")
    if not text and argument is not None:
        text = argument.meaning
    if not text and path[-1] == TARGET and isinstance(value, str):
        own = read_signature(value)
        text = "" if own is None else own.summary
    return as_sentence(text)


def as_sentence(text: str) -> str:
    """Return a comment with a capital letter and a full stop."""
    text = text.strip()
    if not text:
        return ""
    first = re.split(r"[\s:;,]", text)[0]
    if first.replace("-", "").isalpha() and first.islower() and first not in _NOT_CAPITALISED:
        text = text[0].upper() + text[1:]
    return text if text.endswith((".", "?", "!", "…")) else f"{text}."


def _reads(config: Explained, path: Names) -> tuple[Read, ...]:
    """Return the settings that the interpolations in a value read."""
    writers = config.origins.writers(path)
    if not writers:
        return ()
    found = []
    for read in keys_read(writers[-1].text, path):
        value = value_at(config.values, read)
        if value is not NO_VALUE:
            text = value_text(value) if not isinstance(value, Mapping) else "{…}"
            found.append(Read(key=".".join(read), value=text, set_by=set_by(config, read)))
    return tuple(found)


def keys_read(text: str, path: Names) -> list[Names]:
    """Return the paths of the settings that the interpolations in a text read.

    Args:
        text: value with interpolations.
        path: path of the value, from which relative interpolations such as ``${.width}`` are resolved.
    """
    found: list[Names] = []
    for dots, key in _KEY.findall(text):
        names = tuple(re.findall(r"[^.\[\]]+", key))
        found.append((*path[: len(path) - len(dots)], *names) if dots else names)
    return list(dict.fromkeys(found))
