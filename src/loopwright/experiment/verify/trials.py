"""`Trials`: carries out the short runs that a comparison needs."""

from __future__ import annotations

import copy
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from loopwright.data import Splits
from loopwright.device import Device
from loopwright.errors import SettingError
from loopwright.experiment.gate.hydra_tree import override_key
from loopwright.experiment.gate.tree import TARGET
from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.jobs.job import Job
from loopwright.experiment.jobs.job_settings import at_callback_path, callbacks_of
from loopwright.experiment.jobs.objects import build_objects, facts_of, make_trainer
from loopwright.experiment.jobs.recorded import differences
from loopwright.hooks import Callback
from loopwright.loggers.append_only import plain

_TIME_LIMIT = "loopwright.callbacks.TimeLimit"
_log = logging.getLogger("loopwright")


@dataclass(frozen=True, slots=True)
class Trial:
    """Result of a finished run: the model, the training dataloader, and the messages of Python warnings."""

    model: nn.Module
    dataloader: Any
    warnings: list[str]


class Trials:
    """Runs the first steps of a configuration with some settings changed. Each run builds new objects.

    The runs use temporary directories, no loggers and no time limits, and print no output. The configured number of
    steps is not changed, because schedules may depend on this number. Instead, a callback stops each run early.

    Args:
        job: checked job whose seed has been decided.
        trust: packages that the user trusts.
        num_steps: number of steps to compare.
        data: data that were built to check the job. The data of each run must be equal.
        config_dir: directory that ``--config-dir`` names; None for the shipped files alone.

    Attributes:
        job: the checked job.
    """

    def __init__(self, job: Job, trust: Trust, num_steps: int, data: Splits, *, config_dir: str | None = None) -> None:
        left_out = callbacks_of(job.config, _TIME_LIMIT)
        callbacks = {name: node for name, node in (job.config.get("callbacks") or {}).items() if name not in left_out}
        self.config = {**job.config, "loggers": None, "checkpoint": None, "callbacks": callbacks}
        self.num_steps = num_steps
        self.has_validation = data.val is not None
        self._facts = plain(facts_of(data))
        self.job = job
        self._trust = trust
        self._config_dir = config_dir

    def changed(self, **settings: Any) -> dict[str, Any]:
        """Return a copy of the configuration with some values changed.

        Args:
            settings: new values by path, with ``__`` instead of the dot, such as ``loop__eval_steps=2``.

        Raises:
            SettingError: for a path outside ``loop`` that the configuration does not contain.
        """
        config = copy.deepcopy(self.config)
        for path, value in settings.items():
            section, name = path.split("__")
            if section != "loop" and name not in config[section]:
                raise SettingError(f"{section}.{name}", ": missing; verify needs it in the configuration.")
            config[section][name] = value
        return config

    def words_of(self, what: str) -> list[str]:
        """Return the words of the command ``loopwright verify`` for this job, with its seed and number of processes."""
        device = self.job.device
        assert isinstance(device, Device) and self.job.settings.seed is not None, "settle() has decided both"
        decided = {"device.num_processes": device.num_processes, "seed": self.job.settings.seed}
        flags = [] if self._config_dir is None else [f"--config-dir={self._config_dir}"]
        typed = [word for word in self.job.overrides if override_key(word) not in decided]
        return ["verify", what, *flags, *self._trust.flags, *typed, *(f"{key}={v}" for key, v in decided.items())]

    def run(self, config: Mapping[str, Any], callback: Callback, run_dir: Path | None = None) -> Trial:
        """Run a fit with an additional callback, which is called last.

        Args:
            config: configuration that `changed` returned.
            callback: additional callback, which stops the fit.
            run_dir: directory in which a checkpoint is saved at the end. If the directory already contains a
                checkpoint, the fit resumes from this checkpoint. None saves no checkpoint.
        """
        if run_dir is None:
            with tempfile.TemporaryDirectory() as folder:
                return self._run({**config, "checkpoint": None}, callback, Path(folder), {})
        start: dict[str, Any] = {"ckpt_path": run_dir} if (run_dir / "checkpoints").is_dir() else {}
        checkpoint = {TARGET: "loopwright.Checkpointing", "at_validations": False}
        return self._run({**config, "checkpoint": checkpoint}, callback, run_dir, start)

    def _run(self, config: Mapping[str, Any], callback: Callback, run_dir: Path, start: Mapping[str, Any]) -> Trial:
        job = replace(self.job, config=dict(config), loop=None, device=None)
        settings = job.settings
        start = start or {
            "init_from": settings.init_from,
            "strict": settings.init_strict,
            "init_optimizer": settings.init_optimizer,
        }
        with _in_silence() as said:
            objects = build_objects(job, self._trust)
            data = objects.data
            if changes := differences(self._facts, plain(facts_of(data)), "data"):
                raise SettingError(
                    "data", f": changed during verify ({'; '.join(changes)}); try again without changes."
                )
            with make_trainer(job, objects, self._trust, run_dir, {"verify": callback}) as trainer:
                try:
                    trainer.fit(data.train, data.val, **start)
                except SettingError as error:
                    raise at_callback_path(error, config) from error
        return Trial(trainer.model, data.train, [str(warning.message) for warning in said])


@contextmanager
def _in_silence() -> Iterator[list[warnings.WarningMessage]]:
    """While the context is open, record Python warnings instead of printing them, and log errors only.

    Otherwise, each run would print warnings, including warnings about the settings that `Trials.changed` has changed.
    """
    before = _log.level
    _log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            yield said
    finally:
        _log.setLevel(before)
