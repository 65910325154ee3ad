"""`new_data` and `built_data`, which build a trainer for a recorded run, with new samples or with its recorded data.

The configuration ``data=csv`` with another ``val_path`` would not encode these samples as the run did. Without
``val_path``, a run computes means and deviations from the rows that are not held out; with ``val_path``, from all rows.
Both ``data.path`` and ``data.val_path`` therefore name new samples, which ``data.json`` encodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loopwright.data import NewSamples, Splits, new_samples
from loopwright.errors import SettingError, refuse
from loopwright.experiment.compose.overrides import parse_overrides, typed_value
from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.jobs import objects as build
from loopwright.experiment.jobs.check import applied, checked_again, settle
from loopwright.experiment.jobs.job import Job, make_recorded_job
from loopwright.experiment.jobs.job_checker import JobChecker
from loopwright.experiment.jobs.objects import JobObjects, make_trainer
from loopwright.experiment.jobs.recorded import apply_overrides, run_of
from loopwright.experiment.jobs.recorded_data import refuse_other_data, to_use_them, types_data
from loopwright.experiment.jobs.recorded_encoding import reads_new_samples, refuse_other_encoding, without
from loopwright.records import read_encoding, read_summary
from loopwright.trainer import Trainer

_PATHS = ("data.path", "data.val_path")
# Settings of the data that apply to new samples, too, and the arguments of `new_samples` that have these values.
_READING = {
    "batch_size": "batch_size",
    "num_workers": "num_workers",
    "delimiter": "delimiter",
    "decimal": "decimal",
    "encoding": "text_encoding",
}


def chooses_new_data(overrides: Sequence[str], encoding: Mapping[str, Any] | None, split: str) -> bool:
    """Return whether an override names new samples for a run whose data were a table or a folder of images.

    Args:
        overrides: overrides of the recorded configuration.
        encoding: content of ``data.json`` of the run; None: the run has no such file.
        split: option ``split``.

    Raises:
        SettingError: if the override is typed together with a split other than ``val``, or with another setting of the
            data that has no effect on new samples.
    """
    path = _typed_path(overrides)
    if path is None or not reads_new_samples(encoding):
        return False
    name = path.partition("=")[0]
    if split != "val":
        raise SettingError("split", f"={split!r}: names a part of the recorded data; leave out split or {name}.")
    for key in (word.partition("=")[0] for word in overrides):
        if key.startswith("data.") and key != name and key.removeprefix("data.") not in _READING:
            problem = f": has no effect together with {name}, whose samples are encoded as the run recorded"
            raise SettingError(key, f"{problem}; leave out {key} or {name}.")
    return True


def _typed_path(overrides: Sequence[str]) -> str | None:
    """Return the last override of ``data.path`` or ``data.val_path``, or None."""
    return next((word for word in reversed(overrides) if word.partition("=")[0] in _PATHS), None)


@contextmanager
def built_data(
    run_dir: Path, recorded: Mapping[str, Any], overrides: Sequence[str], checkpoint: Path, trust: Trust
) -> Iterator[tuple[Trainer, Splits]]:
    """Build a trainer without a run directory, and the recorded data or the data that overrides choose.

    Args:
        run_dir: run directory.
        recorded: recorded configuration, without checkpoints to start from.
        overrides: overrides of the recorded configuration.
        checkpoint: checkpoint that the trainer will use. Its run may be another run.
        trust: packages that the user trusts.

    Raises:
        SettingError: for a wrong setting, for data that are not the recorded data although no override chooses other
            data, and for data that are encoded differently than the data of the run of ``checkpoint``.
    """

    def make_job(config: dict[str, Any]) -> Job:
        apply_overrides(config, overrides)
        # Loggers would write nothing, and the packages that they need may be missing.
        return make_recorded_job(config | {"loggers": None, "ckpt_path": None}, overrides, trust)

    summary = read_summary(run_dir)
    with checked_again(make_job, recorded, summary, trust) as ready:
        data = ready.objects.data
        if not types_data(overrides):
            refuse_other_data(summary, data, to_use_them(recorded["data"], read_encoding(run_dir)))
        refuse_other_encoding(run_of(checkpoint) or run_dir, data, without(overrides))
        with make_trainer(ready.job, ready.objects, trust, run_dir=None) as trainer:
            yield trainer, data


@contextmanager
def new_data(
    recorded: Mapping[str, Any],
    overrides: Sequence[str],
    encoding: Mapping[str, Any],
    trust: Trust,
    *,
    has_targets: bool,
) -> Iterator[tuple[Trainer, NewSamples]]:
    """Read new samples and build a trainer. The recorded data are neither read nor needed.

    Args:
        recorded: recorded configuration.
        overrides: overrides of the recorded configuration, for which `chooses_new_data` returned True.
        encoding: content of ``data.json`` of the run.
        trust: packages that the user trusts.
        has_targets: whether targets are read.

    Raises:
        SettingError: for samples that cannot be encoded as the run recorded, and for a wrong setting.
    """
    typed = _typed_path(overrides)
    assert typed is not None
    others = [word for word in overrides if word.partition("=")[0] not in _PATHS]
    path, config = _value(typed), dict(recorded)
    apply_overrides(config, others)
    settings = {argument: config["data"][name] for name, argument in _READING.items() if name in config["data"]}
    try:
        samples = new_samples(path, encoding, **settings, has_targets=has_targets)
    except SettingError as error:
        raise error.under("data") from None
    job = make_recorded_job(config | {"loggers": None, "ckpt_path": None}, others, trust)
    with _trainer_of(job, samples, trust) as trainer:
        yield trainer, samples


def _value(override: str) -> str:
    (parsed,) = parse_overrides([override])
    value = typed_value(parsed)
    if not isinstance(value, str):
        raise refuse(parsed.key_or_group, value, "the path of a table or of a folder of images")
    return value


@contextmanager
def _trainer_of(job: Job, samples: NewSamples, trust: Trust) -> Iterator[Trainer]:
    """Build a trainer without the recorded data."""
    settled = settle(job, JobChecker(trust, builds_trusted=True))
    config = settled.built_from
    with applied(settled):
        objects = JobObjects(
            loop=build.build_loop(settled, trust),
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
