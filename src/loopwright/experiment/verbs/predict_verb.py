"""The command ``loopwright predict DIR``, which writes the predictions of a run to a CSV file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loopwright.checkpoint import Chosen, choose, within
from loopwright.errors import SettingError
from loopwright.experiment.console.command_line import CommandLine
from loopwright.experiment.console.messages import tell
from loopwright.experiment.console.options import split_options
from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.jobs.new_data import built_data, chooses_new_data, new_data, refuse_unread_path
from loopwright.experiment.jobs.objects import choose_split
from loopwright.experiment.jobs.recorded import read_recorded, run_of
from loopwright.experiment.jobs.start import NO_START
from loopwright.experiment.runs.predictions import Array, as_columns, write_table
from loopwright.records import read_encoding

_OPTIONS: dict[str, str | None] = {"output": None, "ckpt_path": None, "split": "val"}


def predict(line: CommandLine, trust: Trust) -> int:
    """Write the predictions of a run to a CSV file, one row per sample.

    The best checkpoint is used, or the newest checkpoint if no best checkpoint is known. The option ``ckpt_path``
    selects another checkpoint.

    By default, the samples are the validation data of the run. The option ``split`` selects other data of the run. If
    the run was trained on a table or on images, ``data.path=FILE`` or ``data.val_path=FILE`` selects a new table or a
    new folder of images. New samples are encoded with the recorded encoding in ``data.json``, and need no target.

    Raises:
        SettingError: if the directory contains no run, if a setting or an option is wrong, or if the output file
            exists. The error is also raised for data that the model does not accept, and for data whose encoding
            differs from the recorded encoding.
        CheckpointError: if the run has no valid checkpoint.
    """
    assert line.directory is not None
    directory = Path(line.directory)
    recorded = read_recorded(directory) | dict(NO_START)
    options, overrides = split_options(line.overrides, _OPTIONS)
    refuse_unread_path(directory, recorded, overrides)
    chosen = choose(within(directory, options["ckpt_path"]), prefers_best=True)
    output = Path(options["output"] or directory / f"predictions_{int(chosen.folder.name.rpartition('_')[2])}.csv")
    if os.path.lexists(output):
        raise SettingError("output", f"={str(output)!r}: exists already; name another file.")
    encoding = read_encoding(run_of(chosen.folder) or directory) or {}
    split = str(options["split"])
    if chooses_new_data(overrides, encoding, split):
        with new_data(recorded, overrides, encoding, trust, has_targets=False) as (trainer, samples):
            found: Mapping[str, Array] = trainer.predict(samples.loader, ckpt_path=chosen.folder)
        key, keys = samples.key, samples.keys
    else:
        found, key, keys = _predict_recorded(directory, recorded, overrides, split, chosen, trust)
    columns = as_columns(found, encoding.get("target"))
    write_table(output, key, keys, columns)
    tell(
        f"Predicted: {len(keys):,} samples with {chosen.folder} ({chosen.reason})\n"
        f"File: {output} (columns: {', '.join([key, *list(columns)[:10]])}{', …' if len(columns) > 10 else ''})"
    )
    return 0


def _predict_recorded(
    directory: Path, recorded: Mapping[str, Any], overrides: Sequence[str], split: str, chosen: Chosen, trust: Trust
) -> tuple[Mapping[str, Array], str, Sequence[int]]:
    """Predict for the recorded data, or for the data that overrides select.

    Returns:
        The predictions by name, and the name and the values of the first column of the table.
    """
    with built_data(directory, recorded, overrides, chosen.folder, trust) as (trainer, data):
        found = trainer.predict(choose_split(data, split), ckpt_path=chosen.folder)
    num_samples = len(next(iter(found.values())))
    return found, "row", range(1, num_samples + 1)
