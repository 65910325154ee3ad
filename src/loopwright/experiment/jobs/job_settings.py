"""`JobSettings`, the checked top-level values of a configuration, and functions that check its names and sections."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any

from loopwright.errors import SettingError, check_count, did_you_mean, refuse, refuse_type
from loopwright.loop import TrainingLoop

REQUIRED_SECTIONS = ("loop", "model", "data", "device", "optimizer")
OPTIONAL_SECTIONS = ("scheduler", "precision", "checkpoint", "callbacks", "loggers")

_GLOBAL_GROUPS = ("experiment", "debug")  # groups whose files set keys of the whole configuration

# Names that an override must not remove. Commands and sweeps can therefore set these names in every configuration.
KEPT_NAMES = (
    "data.batch_size",
    "data.num_workers",
    "device.num_processes",
    "device.num_threads",
    "optimizer.lr",
    "checkpoint.every_n_steps",
)

# Groups whose typed option becomes a word of the run's name, if all jobs of a sweep have this option.
NAMING_GROUPS = ("data", "model")
# Settings of the shipped models that the data can determine.
FROM_DATA = (
    "in_features",
    "in_channels",
    "image_size",
    "num_classes",
    "num_targets",
    "target_deviation",
    "context_length",
    "vocab_size",
)

OVERFITS = "loopwright.callbacks.OverfitOneBatch"  # a callback whose micro-batch is not in checkpoints

_NAME = re.compile(r"[A-Za-z0-9._-]+")
VALIDATION_LOOPS = ("loopwright.ValidationLoop", "loopwright.loop.ValidationLoop")
_TRAINING_ONLY = frozenset(inspect.signature(TrainingLoop).parameters) - {"eval_steps"}
_RAISED = re.compile(r"Raised in callback (\w+)\.\w+\.")
_LOOP_SETTINGS = frozenset(inspect.signature(TrainingLoop).parameters)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSettings:
    """The top-level values of a configuration.

    Args:
        name: name of the folder of the run in ``outputs/``; it consists of letters, digits and ``._-``.
        seed: seed of all random streams; None: a random seed is drawn and recorded.
        ckpt_path: checkpoint or run directory that a training loop resumes and a validation loop validates.
        ckpt_paths: paths or globs of checkpoints to validate one after another.
        init_from: checkpoint whose weights a training run starts from.
        init_strict: whether all weights of ``init_from`` must fit the model.
        init_optimizer: whether the optimizer starts with the optimizer state in ``init_from``.
        objective: metric whose value in the last validation is the result of the run.
        objective_mode: whether a smaller ("min") or a larger ("max") objective is better.
        deterministic: whether torch uses deterministic operations only.
        log_every_n_steps: number of steps between two records of training metrics.
        report: whether the run writes ``report.html`` at its end.
        max_restarts: maximum number of restarts without a new checkpoint between them. A run restarts if it fails or is
            killed.

    Raises:
        SettingError: for an invalid value, and for settings that cannot be combined.
    """

    name: str
    seed: int | None
    ckpt_path: str | None
    ckpt_paths: str | Sequence[str] | None
    init_from: str | None
    objective: str
    objective_mode: str
    deterministic: bool
    log_every_n_steps: int
    max_restarts: int = 0
    report: bool = False
    init_strict: bool = True
    init_optimizer: bool = False

    def __post_init__(self) -> None:
        """Check the values."""
        if not isinstance(self.name, str):
            raise refuse_type("name", self.name, "a word of letters, digits and ._-", "quote it")
        if not _NAME.fullmatch(self.name) or set(self.name) == {"."}:
            raise refuse("name", self.name, "a word of letters, digits and ._-")
        if self.seed is not None:
            if isinstance(self.seed, bool) or not isinstance(self.seed, int):
                raise refuse_type("seed", self.seed, "a whole number, 0 or more, or null")
            if not 0 <= self.seed < 2**63:
                raise refuse("seed", self.seed, "a whole number, 0 or more and below 2**63, or null")
        for setting, value in (("ckpt_path", self.ckpt_path), ("init_from", self.init_from)):
            if value is not None:
                _check_path(setting, value)
        for path in [self.ckpt_paths] if isinstance(self.ckpt_paths, str) else self.ckpt_paths or []:
            _check_path("ckpt_paths", path)
        if not isinstance(self.objective, str) or not self.objective:
            raise refuse_type("objective", self.objective, "the name of a metric, such as val/loss")
        for setting in ("deterministic", "init_strict", "init_optimizer", "report"):
            if not isinstance(getattr(self, setting), bool):
                raise refuse_type(setting, getattr(self, setting), "true or false")
        check_count("log_every_n_steps", self.log_every_n_steps)
        check_count("max_restarts", self.max_restarts, least=0)
        given = [s for s in ("ckpt_path", "ckpt_paths", "init_from") if getattr(self, s) is not None]
        if len(given) > 1:
            raise SettingError(
                given[1], f": cannot be combined with {given[0]}; use {given[0]}=null or {given[1]}=null."
            )
        for setting, is_typed, other in (
            ("init_strict=false", not self.init_strict, "init_strict=true"),
            ("init_optimizer=true", self.init_optimizer, "init_optimizer=false"),
        ):
            if is_typed and self.init_from is None:
                raise SettingError(setting, f": has an effect only with init_from; add init_from=DIR, or use {other}.")


def read_settings(config: Mapping[str, Any]) -> JobSettings:
    """Read the top-level values of a resolved configuration, and check that no value or section is missing.

    Fields of `JobSettings` with a default may be missing, because older recorded configurations lack these fields.

    Raises:
        SettingError: for a value that is not accepted, and for a missing value or section.
    """
    names = [field.name for field in fields(JobSettings) if field.default is MISSING]
    later = [field.name for field in fields(JobSettings) if field.name in config and field.name not in names]
    for name in (*REQUIRED_SECTIONS, *names):
        if name not in config or (name in REQUIRED_SECTIONS and config[name] is None):
            raise SettingError(name, ": must be given, because every run needs this value.")
    if isinstance(config["ckpt_paths"], Sequence) and not config["ckpt_paths"]:
        raise refuse("ckpt_paths", config["ckpt_paths"], "paths or globs, or null")
    if not isinstance(config["ckpt_paths"], str | list | None):
        raise refuse_type("ckpt_paths", config["ckpt_paths"], "paths or globs, or null")
    return JobSettings(**{name: config[name] for name in (*names, *later)})


def check_sections(config: Mapping[str, Any], choices: Mapping[str, Any]) -> None:
    """Refuse a required section that names no class or function, and a section ``optimizer`` without ``_partial_``.

    Args:
        config: resolved configuration.
        choices: chosen option of each configuration group; empty for a recorded configuration.

    Raises:
        SettingError: for the first section that is refused.
    """
    for name in REQUIRED_SECTIONS:
        node = config.get(name)
        if isinstance(node, str):
            remedy = f"to choose an option in a file, write under defaults: - override /{name}: {node}"
            raise refuse_type(name, node, "a mapping with a _target_", remedy)
        if isinstance(node, Mapping) and "_target_" not in node:
            file = f"{name}/{choices[name]}.yaml has" if isinstance(choices.get(name), str) else "has"
            raise SettingError(name, f": {file} no _target_; expected _target_: and the name of a class or function.")
    optimizer = config.get("optimizer")
    if isinstance(optimizer, Mapping) and optimizer.get("_partial_") is not True:
        reason = "because the trainer gives an optimizer its parameters"
        raise SettingError("optimizer._partial_", f": expected true, {reason}; add _partial_: true beside _target_.")


def at_config_path(error: SettingError) -> SettingError:
    """Return the error with the configuration path of its setting.

    The trainer and the plan name some settings without their section, such as ``max_steps`` instead of
    ``loop.max_steps``. Errors about all other settings are returned unchanged.
    """
    settings = error.setting.split(", ")
    if _LOOP_SETTINGS.issuperset(settings):
        return type(error)(", ".join(f"loop.{setting}" for setting in settings), error.problem)
    if error.setting == "monitor":
        return error.under("scheduler")
    if error.setting == "schedulers":
        return type(error)("scheduler", error.problem)
    if error.setting in ("train_dataloader", "val_dataloader", "num_micro_batches") or error.setting.startswith("len("):
        return type(error)("data", f": {error}")
    return error


def without_training(config: dict[str, Any], typed: Sequence[str] = ()) -> dict[str, Any]:
    """Remove the settings of a training loop from a configuration with a validation loop.

    An experiment file sets options of its training loop, such as ``loop.max_steps``. A validation loop does not accept
    these options.

    Args:
        config: resolved configuration. It is returned unchanged if it has no validation loop.
        typed: overrides as typed. A training setting in an override is kept, and a later check refuses this setting.
    """
    loop = config.get("loop")
    if not isinstance(loop, dict) or loop.get("_target_") not in VALIDATION_LOOPS:
        return config
    words = {word.lstrip("+").partition("=")[0] for word in typed}
    kept = {name: value for name, value in loop.items() if name not in _TRAINING_ONLY or f"loop.{name}" in words}
    return {**config, "loop": kept}


def at_callback_path(error: SettingError, config: Mapping[str, Any]) -> SettingError:
    """Return the error of a callback or logger with the configuration path of its setting.

    The error is returned unchanged if no callback or logger in the configuration can have raised it.
    """
    raised = {match[1] for match in map(_RAISED.fullmatch, getattr(error, "__notes__", [])) if match}
    for section in ("callbacks", "loggers"):
        for name, node in (config.get(section) or {}).items():
            if not isinstance(node, Mapping):
                continue
            kind = str(node.get("_target_")).rpartition(".")[2]
            own = type(error)(error.setting.removeprefix(f"{kind}."), error.problem)
            is_its = name in raised or own.setting != error.setting
            if is_its and re.split(r"[.\[]", own.setting)[0] in node:
                return own.under(f"{section}.{name}")
    return error


def callbacks_of(config: Mapping[str, Any], target: str) -> list[str]:
    """Return the names of the callbacks in a configuration whose class is ``target``."""
    nodes = (config.get("callbacks") or {}).items()
    return [name for name, node in nodes if isinstance(node, Mapping) and node.get("_target_") == target]


def check_names(config: Mapping[str, Any], used: frozenset[str], typed: Sequence[str]) -> None:
    """Refuse unknown top-level names, and overrides that remove a name in `KEPT_NAMES`.

    Args:
        config: resolved configuration.
        used: top-level names that interpolations read. These names are accepted.
        typed: overrides as typed.
    """
    known = {*REQUIRED_SECTIONS, *OPTIONAL_SECTIONS, *(field.name for field in fields(JobSettings))}
    for name in config:
        if name in _GLOBAL_GROUPS and name not in used:
            problem = f": the file that {name}=… chooses must begin with the line '# @package _global_'"
            raise SettingError(name, f"{problem}; otherwise its keys are not at the top level.")
        if name not in known and name not in used:
            raise SettingError(
                name, f": no such key; nothing reads it.{did_you_mean(name, sorted(known)) or _available(known)}"
            )
    for name in KEPT_NAMES:
        if any(word.startswith("~") and word[1:].split("=")[0] == name for word in typed):
            raise SettingError(f"~{name}", ": this name cannot be removed; set a value instead.")


def _available(names: set[str]) -> str:
    return f" Available: {', '.join(sorted(names))}."


def _check_path(setting: str, value: object) -> None:
    if not isinstance(value, str) or not value:
        raise refuse_type(setting, value, "a path, or null")
    if not value.isprintable():
        raise refuse(setting, value, "a path of printable characters")
