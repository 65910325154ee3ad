"""Functions that read, override and compare the configurations that runs recorded in ``config.yaml``.

A run directory may come from an untrusted source. Therefore, a recorded configuration passes the checks of a
configuration file that the user wrote.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml  # a dependency of omegaconf
from hydra.core.override_parser.types import Override

from loopwright.errors import CheckpointError, SettingError
from loopwright.experiment.compose.composition_errors import unknown_key
from loopwright.experiment.compose.overrides import parse_overrides, typed_value
from loopwright.experiment.console.command_line import shell_line
from loopwright.experiment.console.messages import joined
from loopwright.experiment.gate.config_files import check_config_file, yaml_errors
from loopwright.experiment.gate.tree import TARGET
from loopwright.shipped import conf_dir

_CHECKPOINTING = ("loopwright.Checkpointing", "loopwright.checkpoint.Checkpointing")


def read_recorded(run_dir: Path) -> dict[str, Any]:
    """Read the configuration that a run recorded in its ``config.yaml``.

    If the settings of a `Checkpointing` lack ``at_validations``, the value False is added. Versions without this
    setting saved no checkpoints at validations.

    Raises:
        CheckpointError: if ``run_dir`` is not a folder with a ``config.yaml``.
        SettingError: if the file does not contain one mapping with string keys; if it contains tags, aliases, repeated
            keys or values that cannot be read; if it exceeds the limits in `loopwright.experiment.gate.budget`.
    """
    file = run_dir / "config.yaml"
    if not run_dir.is_dir():
        problem = "a file" if run_dir.exists() else "no such folder"
        raise CheckpointError(f"{run_dir}: {problem}; expected a run directory.")
    if not file.is_file() or file.is_symlink():
        raise CheckpointError(f"{run_dir}: expected a run directory with a regular file config.yaml.")
    text = check_config_file(file)
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise SettingError(f"{file}:{event.start_mark.line + 1}", ": aliases are not accepted.")
    with yaml_errors(file):
        _check_keys(file, yaml.compose(text, Loader=yaml.SafeLoader))
        config = yaml.safe_load(text)
    if not isinstance(config, dict) or not all(isinstance(key, str) for key in config):
        raise SettingError(str(file), ": expected a mapping of names to values.")
    checkpoint = config.get("checkpoint")
    if isinstance(checkpoint, dict) and checkpoint.get(TARGET) in _CHECKPOINTING:
        checkpoint.setdefault("at_validations", False)
    return config


def _check_keys(file: Path, node: yaml.Node | None) -> None:
    """Refuse a key that is given twice in one mapping. A YAML loader would silently keep the last value."""
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise SettingError(f"{file}:{key.start_mark.line + 1}", ": expected keys that are words or numbers.")
            if key.value in seen:
                raise SettingError(f"{file}:{key.start_mark.line + 1}", f": {key.value} is given twice.")
            seen.add(key.value)
            _check_keys(file, value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _check_keys(file, value)


def apply_overrides(config: dict[str, Any], overrides: Sequence[str]) -> None:
    """Set values in a recorded configuration, in place.

    Overrides such as ``model=cnn``, which choose an option of a configuration group, are refused.

    Raises:
        SettingError: if an override is not ``key=value`` with one value, if its key is not in the
            configuration, or if it chooses an option of a group.
    """
    problems = []
    for override in parse_overrides(overrides):
        key, line = override.key_or_group, override.input_line
        if override.is_sweep_override():
            problems.append(f"{line}: expected one value.")
        elif override.is_add() or override.is_force_add() or override.is_delete() or override.package is not None:
            problems.append(f"{line}: expected key=value with a key from the config.yaml of the run.")
        elif isinstance(_get(config, key.split(".")), dict):
            problems.append(
                f"{line}: a recorded run keeps its option of {key}; change one value of it with {key}.NAME=VALUE, or "
                f"start a new run{_command_of(override)}"
            )
        elif not _set(config, key.split("."), typed_value(override)):
            problems.append(f"{line}: no such key.{unknown_key(key, config)}")
    if problems:
        raise SettingError(joined(problems), "")


def _command_of(override: Override) -> str:
    """Return the end of a remedy: a command with only ``override``, or "" if its option is not in a shipped file."""
    value = override.value()
    options = value if isinstance(value, list) else [value]
    files = [conf_dir() / override.key_or_group / f"{option}.yaml" for option in options]
    is_complete = isinstance(value, dict) or all(file.is_file() for file in files)
    return f" with: {shell_line(['loopwright', str(override.input_line)])}" if is_complete else ""


def recorded_max_restarts(run_dir: Path, overrides: Sequence[str]) -> int:
    """Return the setting ``max_restarts`` of a recorded run after ``overrides`` are applied.

    Return 0 for an invalid value. A later check of the run refuses this value.
    """
    config = read_recorded(run_dir)
    apply_overrides(config, overrides)
    value = config.get("max_restarts")
    return value if type(value) is int and value > 0 else 0


# Top-level names whose values must not change when a run is resumed. `data.num_workers` may change, because the results
# do not depend on this number.
RESUMED_SECTIONS = ("model", "data", "optimizer", "scheduler", "precision", "seed", "deterministic")


def run_differences(path: Path, config: Mapping[str, Any], sections: Sequence[str]) -> tuple[Path, list[str]] | None:
    """Compare ``config`` with the recorded configuration of the run that saved a checkpoint.

    Args:
        path: path of a checkpoint or of a run directory.
        config: resolved configuration.
        sections: top-level names to compare; ``data.num_workers`` is not compared.

    Returns:
        The run directory and one line for each difference. None if there is no difference, or if the checkpoint is not
        in a run directory.
    """
    run_dir = run_of(path)
    if run_dir is None:
        return None
    theirs = read_recorded(run_dir)
    lines = [line for name in sections for line in differences(theirs.get(name), config.get(name), name)]
    lines = [line for line in lines if not line.startswith("data.num_workers:")]
    return (run_dir, lines) if lines else None


def run_of(path: Path) -> Path | None:
    """Return the run directory that contains a checkpoint, or None. ``path`` may also be a run directory."""
    places = (path, path.parent, path.parent.parent)
    return next((p for p in places if (p / "config.yaml").is_file() and (p / "checkpoints").is_dir()), None)


def differences(theirs: Any, ours: Any, path: str = "") -> list[str]:
    """Return a line ``name: X recorded, Y now`` for each difference between two configurations or sections."""
    if isinstance(theirs, Mapping) and isinstance(ours, Mapping):
        if theirs.get(TARGET) != ours.get(TARGET):
            return [f"{path}: {theirs.get(TARGET)} recorded, {ours.get(TARGET)} now"]
        prefix = f"{path}." if path else ""
        keys = [*theirs, *(key for key in ours if key not in theirs)]
        missing = object()
        lines = []
        for key in keys:
            their, our = theirs.get(key, missing), ours.get(key, missing)
            if their is missing or our is missing:
                shown = ["not set" if value is missing else repr(value) for value in (their, our)]
                lines.append(f"{prefix}{key}: {shown[0]} recorded, {shown[1]} now")
            else:
                lines += differences(their, our, f"{prefix}{key}")
        return lines
    return [] if theirs == ours else [f"{path}: {theirs!r} recorded, {ours!r} now"]


def _get(section: Any, parts: Sequence[str]) -> Any:
    for part in parts:
        section = section.get(part) if isinstance(section, dict) else None
    return section


def _set(section: Any, parts: Sequence[str], value: Any) -> bool:
    for part in parts[:-1]:
        if not isinstance(section, dict) or part not in section:
            return False
        section = section[part]
    if not isinstance(section, dict) or parts[-1] not in section:
        return False
    section[parts[-1]] = value
    return True
