"""`understood`, which describes in steps what the value of a setting means.

Lengths that depend on the data are not computed here. For these, the text names ``loopwright plan``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from math import ceil
from types import MappingProxyType
from typing import Any

from loopwright.experiment.console.command_line import shell_line
from loopwright.experiment.explain.explained import Explained, value_at
from loopwright.experiment.gate.tree import TARGET
from loopwright.experiment.jobs.job_settings import FROM_DATA
from loopwright.plan.cadence import steps_between_validations
from loopwright.plan.epochs import read_epochs

_TRAINING = ("loopwright.TrainingLoop", "loopwright.loop.TrainingLoop")
_NEVER = "never"
_ONLY_IN_SWEEPS = "has an effect only with -m"

Config = Mapping[str, Any]


def understood(config: Explained, path: Sequence[str]) -> str | None:
    """Describe what the value at ``path`` means. None if the value needs no explanation."""
    value = value_at(config.values, path)
    key = ".".join(path)
    if path[0] == "sweep":
        return _ONLY_IN_SWEEPS
    if path[0] == "model" and path[-1] in FROM_DATA and not _is_chosen(config, path):
        return f"the data of the run determine this value; see {_plan(config)}"
    explain = _EXPLAINED.get(key)
    if explain is None:
        return None
    text = explain(value, config.values)
    return f"depends on the data; see {_plan(config)}" if text == "" else text


def _plan(config: Explained) -> str:
    return shell_line(["loopwright", "plan", *(word for word in config.overrides if not word.startswith("sweep."))])


def _is_chosen(config: Explained, path: Sequence[str]) -> bool:
    """Return whether an override or a file of the user sets a value."""
    writers = config.origins.writers(path)
    return bool(writers) and not writers[-1].is_shipped


def num_steps_of(config: Config) -> int | None:
    """Return the number of steps of a new training. None if it depends on the data, or if the run is resumed."""
    loop = config.get("loop")
    if not isinstance(loop, Mapping) or loop.get(TARGET) not in _TRAINING or config.get("ckpt_path") is not None:
        return None
    length = loop.get("num_steps") if loop.get("num_steps") is not None else loop.get("max_steps")
    return length if _is_count(length) and loop.get("num_epochs") is None else None


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _steps_per_epoch(config: Config) -> int | None:
    value = config["loop"].get("steps_per_epoch")
    return value if _is_count(value) else None


def _eval_frequency(value: Any, config: Config) -> str | None:
    if value is None or (not isinstance(value, bool) and value == 0):
        return _NEVER
    num_steps = num_steps_of(config)
    is_fraction = isinstance(value, float) and 0 < value <= 1
    if not (_is_count(value) or is_fraction or read_epochs(value) is not None):
        return None
    if num_steps is None or (isinstance(value, str) and _steps_per_epoch(config) is None):
        return ""
    every = steps_between_validations(value, num_steps, _steps_per_epoch(config))
    assert every is not None, "the number of steps is not 0"
    at_start = ", and before the first step" if config["loop"].get("eval_at_start") is True else ""
    return _cadence(every, num_steps) + at_start


def _save_interval(value: Any, config: Config) -> str | None:
    if value is None:
        return None
    num_steps = num_steps_of(config)
    if read_epochs(value) is not None or (_is_count(value) and num_steps is None):
        return ""
    if not _is_count(value) or num_steps is None:
        return None
    also = ", and at each validation" if config["checkpoint"].get("at_validations") is True else ""
    return _cadence(value, num_steps) + also


def _log_interval(value: Any, config: Config) -> str | None:
    num_steps = num_steps_of(config)
    return None if not _is_count(value) else "" if num_steps is None else _cadence(value, num_steps)


def _cadence(every: int, num_steps: int) -> str:
    """Describe an event after every ``every`` steps and after the last step."""
    times = ceil(num_steps / every)
    if times == 1:
        return f"once, after step {num_steps:,}"
    and_last = " and after the last step" if num_steps % every else ""
    if every == 1:
        return f"after each of {num_steps:,} steps"
    return f"after every {every:,} of {num_steps:,} steps{and_last}, {times:,} times"


def _length(value: Any, config: Config) -> str | None:
    """Describe a length in a learning-rate schedule."""
    if isinstance(value, bool) or not isinstance(value, int | float | str) or isinstance(value, int):
        return None
    num_steps = num_steps_of(config)
    if isinstance(value, str):
        return "" if read_epochs(value) is not None else None
    if not 0 <= value < 1:
        return None
    return "" if num_steps is None else f"{ceil(Fraction(repr(value)) * num_steps):,} of {num_steps:,} steps"


def _grad_accum(value: Any, config: Config) -> str | None:
    batch_size = value_at(config, ("data", "batch_size"))
    if not _is_count(value) or not _is_count(batch_size) or value_at(config, ("device", "num_processes")) != 1:
        return None
    return f"{value * batch_size:,} samples a step, in micro-batches of {batch_size:,}"


def _epochs(value: Any, config: Config) -> str | None:
    return None if value is None else ""


def _only_with_init_from(value: Any, config: Config) -> str | None:
    return "has an effect only with init_from" if config.get("init_from") is None else None


def _when_null(text: str) -> Callable[[Any, Config], str | None]:
    return lambda value, config: text if value is None else None


_EXPLAINED: Mapping[str, Callable[[Any, Config], str | None]] = MappingProxyType(
    {
        "loop.eval_frequency": _eval_frequency,
        "loop.num_epochs": _epochs,
        "loop.grad_accum_steps": _grad_accum,
        "checkpoint.every_n_steps": _save_interval,
        "log_every_n_steps": _log_interval,
        "scheduler.warmup_steps": _length,
        "scheduler.decay_steps": _length,
        "init_strict": _only_with_init_from,
        "init_optimizer": _only_with_init_from,
        "seed": _when_null("Loopwright draws a seed when the run starts, and records it"),
        "device.num_threads": _when_null("Loopwright chooses a number when the run starts, and records it"),
        "device.kind": lambda value, config: (
            "Loopwright chooses a device when the run starts, and records its kind" if value == "auto" else None
        ),
    }
)
