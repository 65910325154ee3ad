"""`Told`: a callback for the jobs of a sweep. Files in the current directory tell it what to do in which job."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import faulty
from faulty import DEATHS
from loopwright import Callback

STEP = 3
OPTION = "told:\n  _target_: told.Told\n"  # content of the file callbacks/told.yaml

_models: list[weakref.ref[Any]] = []
num_alive_models: list[int] = []  # at the start of each fit: number of models of earlier fits that are still in memory


class Told(Callback):
    """Reads files such as ``raise-2``: job 2 ends after step 3 as `faulty.DEATHS` describes. It removes the file.

    Args:
        note: a setting without an effect.
    """

    def __init__(self, note: str = "") -> None:
        self.note = note

    def on_fit_start(self, trainer: Any, *_: Any) -> None:
        num_alive_models.append(sum(model() is not None for model in _models))
        _models.append(weakref.ref(trainer.model))

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step != STEP:
            return
        for file in Path().glob(f"*-{Path(trainer.run_dir).name}"):
            file.unlink()
            DEATHS[file.name.partition("-")[0]]()


def write_option(root: Path) -> None:
    """Write the files of `faulty`, and the option ``callbacks=told``, into ``conf`` in a directory."""
    faulty.write_configs(root / "conf")
    (root / "conf" / "callbacks" / "told.yaml").write_text(OPTION)
