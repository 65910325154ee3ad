"""The command ``loopwright predict DIR``, which writes the predictions of a run to a table."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loopwright.checkpoint import Chosen, choose, within
from loopwright.data import NewSamples, Splits, new_samples
from loopwright.errors import SettingError, refuse
from loopwright.experiment.compose.overrides import parse_overrides, typed_value
from loopwright.experiment.console.command_line import CommandLine
from loopwright.experiment.console.messages import tell
from loopwright.experiment.console.options import split_options
from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.jobs import objects as build
from loopwright.experiment.jobs.check import applied, checked_again, settle
from loopwright.experiment.jobs.job import Job, make_recorded_job
from loopwright.experiment.jobs.job_checker import JobChecker
from loopwright.experiment.jobs.objects import JobObjects, choose_split, make_trainer
from loopwright.experiment.jobs.recorded import apply_overrides, read_recorded
from loopwright.experiment.jobs.recorded_data import refuse_other_data, to_use_them, types_data
from loopwright.experiment.runs.predictions import Array, as_columns, write_table
from loopwright.loop import ValidationLoop
from loopwright.records import read_encoding, read_summary
from loopwright.trainer import Trainer

_STARTS: dict[str, None] = {"ckpt_path": None, "ckpt_paths": None, "init_from": None}
_OPTIONS: dict[str, str | None] = {"output": None, "ckpt_path": None, "split": "val"}
_PATH = "data.path"


def predict(line: CommandLine, trust: Trust) -> int:
    """Write the predictions of a run to a table of comma-separated values, one row per sample.

    With ``data.path=FILE``, a run whose data were a table or images predicts for this table or folder of images. The
    samples are encoded as the run recorded it in ``data.json``, and need no target. Otherwise the run predicts for its
    validation data, or for the data that ``split`` names.

    Raises:
        SettingError: if the directory contains no run, for a wrong setting or option, if the output file exists, and
            for data that the run cannot predict.
        CheckpointError: if the run has no valid checkpoint.
    """
    assert line.directory is not None
    directory = Path(line.directory)
    recorded = read_recorded(directory) | _STARTS
    options, overrides = split_options(line.overrides, _OPTIONS)
    chosen = choose(within(directory, options["ckpt_path"]), prefers_best=True)
    output = Path(options["output"] or directory / f"predictions_{int(chosen.folder.name.rpartition('_')[2])}.csv")
    if os.path.lexists(output):
        raise SettingError("output", f"={str(output)!r}: exists already; name another file.")
    encoding = read_encoding(directory) or {}
    new_path = next((word for word in overrides if word.partition("=")[0] == _PATH), None)
    if new_path is not None and encoding.get("data") in ("csv", "image_folder"):
        others = [word for word in overrides if word != new_path]
        found, key, keys = _predict_new(_value(new_path), recorded, others, encoding, chosen, trust)
    else:
        found, key, keys = _predict_recorded(directory, recorded, overrides, options["split"] or "val", chosen, trust)
    columns = as_columns(found, encoding.get("target"))
    write_table(output, key, keys, columns)
    tell(
        f"Predicted: {len(keys):,} samples with {chosen.folder} ({chosen.reason})\n"
        f"File: {output} (columns: {', '.join([key, *list(columns)[:10]])}{', …' if len(columns) > 10 else ''})"
    )
    return 0


def _value(override: str) -> str:
    (parsed,) = parse_overrides([override])
    value = typed_value(parsed)
    if not isinstance(value, str):
        raise refuse(_PATH, value, "the path of a table or of a folder of images")
    return value


def _predict_new(
    path: str,
    recorded: Mapping[str, Any],
    overrides: Sequence[str],
    encoding: Mapping[str, Any],
    chosen: Chosen,
    trust: Trust,
) -> tuple[Mapping[str, Array], str, Sequence[int | str]]:
    """Predict for new samples. The recorded data are neither read nor needed."""
    config = dict(recorded)
    apply_overrides(config, overrides)
    data = config["data"]
    settings = {name: data[name] for name in ("batch_size", "num_workers", "delimiter") if name in data}
    try:
        samples = new_samples(path, encoding, **settings)
    except SettingError as error:
        raise error.under("data") from None
    job = make_recorded_job(config | {"loggers": None}, overrides, trust)
    with _trainer_of(job, samples, trust) as trainer:
        return trainer.predict(samples.loader, ckpt_path=chosen.folder), samples.key, samples.keys


@contextmanager
def _trainer_of(job: Job, samples: NewSamples, trust: Trust) -> Iterator[Trainer]:
    """Build a trainer without the recorded data."""
    settled = settle(job, JobChecker(trust, builds_trusted=True))
    config = settled.built_from
    with applied(settled):
        objects = JobObjects(
            loop=ValidationLoop(),
            device=build.build_device(settled, trust),
            precision=build.build_precision(config.get("precision"), trust),
            checkpointing=None,
            optimizer=None,
            schedulers=[],
            callbacks=build.build_callbacks(config, "callbacks", trust),
            loggers={},
            data=Splits(train=samples.loader),
        )
        with make_trainer(settled, objects, trust, run_dir=None) as trainer:
            yield trainer


def _predict_recorded(
    directory: Path, recorded: Mapping[str, Any], overrides: Sequence[str], split: str, chosen: Chosen, trust: Trust
) -> tuple[Mapping[str, Array], str, Sequence[int]]:
    """Predict for the recorded data, or for the data that overrides choose."""

    def make_job(config: dict[str, Any]) -> Job:
        apply_overrides(config, overrides)
        return make_recorded_job(config | {"loggers": None}, overrides, trust)

    summary = read_summary(directory)
    with checked_again(make_job, recorded, summary, trust) as ready:
        data = ready.objects.data
        if not types_data(overrides):
            refuse_other_data(summary, data, to_use_them(recorded["data"]))
        loader = choose_split(data, split)
        with make_trainer(ready.job, ready.objects, trust, run_dir=None) as trainer:
            found = trainer.predict(loader, ckpt_path=chosen.folder)
    num_samples = len(next(iter(found.values())))
    return found, "row", range(1, num_samples + 1)
