"""`Trials`: the runs of one configuration that are compared, each built anew and gone when it has ended."""

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

from loopwright.errors import SettingError
from loopwright.experiment.gate.tree import TARGET
from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.jobs.job import Job
from loopwright.experiment.jobs.objects import build_objects, make_trainer
from loopwright.experiment.jobs.settings import at_callback_path, callbacks_of
from loopwright.hooks import Callback

_TIME_LIMIT = "loopwright.callbacks.TimeLimit"
_log = logging.getLogger("loopwright")


@dataclass(frozen=True, slots=True)
class Trial:
    """What is looked at of a run that has ended: its model, its training dataloader, and what Python was warned of."""

    model: nn.Module
    dataloader: Any
    warnings: list[str]


class Trials:
    """Runs a configuration, changed here and there, a few steps far, each in a directory that is gone afterwards.

    Loggers, time limits, and what a run would say are left out. Of its length it keeps everything that schedules
    follow: it is stopped after the steps that are compared.

    Args:
        job: checked; its seed is decided.
        trust: the packages that the user trusts.
        num_steps: number of steps that are compared.
        has_validation: whether the job has data to validate.
    """

    def __init__(self, job: Job, trust: Trust, num_steps: int, *, has_validation: bool) -> None:
        left_out = callbacks_of(job.config, _TIME_LIMIT)
        callbacks = {name: node for name, node in (job.config.get("callbacks") or {}).items() if name not in left_out}
        self.config = {**job.config, "loggers": None, "checkpoint": None, "callbacks": callbacks}
        self.num_steps = num_steps
        self.has_validation = has_validation
        self._job = job
        self._trust = trust

    def changed(self, **settings: Any) -> dict[str, Any]:
        """The configuration with values of it set, by their paths with ``__`` for the dot.

        Raises:
            SettingError: for one that this configuration does not have, outside the loop.
        """
        config = copy.deepcopy(self.config)
        for path, value in settings.items():
            section, name = path.split("__")
            if section != "loop" and name not in config[section]:
                raise SettingError(f"{section}.{name}", ": expected in the configuration; nothing else can be set.")
            config[section][name] = value
        return config

    def run(self, config: Mapping[str, Any], callback: Callback, run_dir: Path | None = None) -> Trial:
        """Fit, with one more callback that is called last.

        Args:
            config: of `changed`.
            callback: stops the fit.
            run_dir: where it is saved when it stops, and goes on from where it was saved before; None: it is not saved.
        """
        if run_dir is None:
            with tempfile.TemporaryDirectory() as folder:
                return self._run({**config, "checkpoint": None}, callback, Path(folder), {})
        start = {"ckpt_path": run_dir} if (run_dir / "checkpoints").is_dir() else {}
        return self._run({**config, "checkpoint": {TARGET: "loopwright.Checkpointing"}}, callback, run_dir, start)

    def _run(self, config: Mapping[str, Any], callback: Callback, run_dir: Path, start: Mapping[str, Any]) -> Trial:
        job = replace(self._job, config=dict(config), loop=None)
        with _in_silence() as said:
            objects = build_objects(job, self._trust)
            data = objects.data
            with make_trainer(job, objects, self._trust, run_dir, {"verify": callback}) as trainer:
                try:
                    trainer.fit(data.train, data.val, **(start or {"init_from": job.settings.init_from}))
                except SettingError as error:
                    raise at_callback_path(error, config) from error
        return Trial(trainer.model, data.train, [str(warning.message) for warning in said])


@contextmanager
def _in_silence() -> Iterator[list[warnings.WarningMessage]]:
    """What a run warns of it would warn of twice, and of a length that is not its own."""
    before = _log.level
    _log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            yield said
    finally:
        _log.setLevel(before)
