"""`Runs`: the runs of one configuration that are compared, each built anew and gone when it has ended."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from loopwright.errors import SettingError
from loopwright.experiment.build import build_run_data, build_trainer
from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.settings import at_callback_path, read_settings
from loopwright.hooks import Callback
from loopwright.seeding import draw_seed
from loopwright.trainer import Trainer

_log = logging.getLogger("loopwright")


@dataclass(frozen=True, slots=True)
class Ran:
    """What is looked at of a run that has ended: its model, its training dataloader, and what Python was warned of."""

    model: nn.Module
    dataloader: Any
    warnings: list[str]


class Runs:
    """Runs a configuration, changed here and there, a few steps far.

    Loggers and what a run leaves are left out, and what it would say. Of its length it keeps everything that schedules
    follow: it is stopped after the steps that are compared.

    Args:
        config: resolved and checked.
        trust: what the user trusts.
        num_steps: that are compared.
    """

    def __init__(self, config: Mapping[str, Any], trust: Trust, num_steps: int) -> None:
        self.config = {**config, "loggers": None, "checkpoint": None}
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

    def run(
        self,
        config: Mapping[str, Any],
        callback: Callback,
        run_dir: Path | None = None,
        resume_from: Path | None = None,
    ) -> Ran:
        """Fit, with one more callback that is called last.

        Args:
            config: of `changed`.
            callback: stops the fit.
            run_dir: where it is saved when it stops; None: it is not.
            resume_from: the run directory whose newest checkpoint it goes on from.
        """
        saving = None if run_dir is None else {"_target_": "loopwright.checkpoint.Checkpointing"}
        config = {**config, "checkpoint": saving}
        settings = read_settings(config)
        with _in_silence() as said:
            trainer = build_trainer(config, settings, self._trust, run_dir, {"verify": callback})
            with trainer:
                data = build_run_data(config, self._trust, trainer.seed)
                start = {"init_from": settings.init_from} if resume_from is None else {"ckpt_path": resume_from}
                try:
                    trainer.fit(data.train, data.val, **start)
                except SettingError as error:
                    raise at_callback_path(error, config) from error
                note_end(callback, trainer)
        return Ran(trainer.model, data.train, [str(warning.message) for warning in said])


def note_end(callback: Callback, trainer: Trainer) -> None:
    """Let a trace see the fit that has ended."""
    note = getattr(callback, "note_end", None)
    if note is not None:
        note(trainer)


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
