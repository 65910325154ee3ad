"""`Trials`: the runs of one configuration that are compared, each built anew and gone when it has ended."""

from __future__ import annotations

import copy
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from loopwright.errors import SettingError
from loopwright.experiment.gate.tree import TARGET
from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.jobs.objects import build_run_data, build_trainer
from loopwright.experiment.jobs.settings import at_callback_path, callbacks_of, read_settings
from loopwright.hooks import Callback
from loopwright.seeding import draw_seed

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
        config: resolved and checked.
        trust: what the user trusts.
        num_steps: that are compared.
    """

    def __init__(self, config: Mapping[str, Any], trust: Trust, num_steps: int) -> None:
        left_out = callbacks_of(config, _TIME_LIMIT)
        callbacks = {name: node for name, node in (config.get("callbacks") or {}).items() if name not in left_out}
        self.config = {**config, "loggers": None, "checkpoint": None, "callbacks": callbacks}
        if config["seed"] is None:
            self.config["seed"] = draw_seed()
        self.num_steps = num_steps
        self._trust = trust

    @cached_property
    def has_validation(self) -> bool:
        """Whether there are data to validate."""
        return build_run_data(self.config, self._trust, self.config["seed"]).val is not None

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
        settings = read_settings(config)
        with _in_silence() as said:
            trainer = build_trainer(config, settings, self._trust, run_dir, {"verify": callback})
            with trainer:
                data = build_run_data(config, self._trust, trainer.seed)
                try:
                    trainer.fit(data.train, data.val, **(start or {"init_from": settings.init_from}))
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
