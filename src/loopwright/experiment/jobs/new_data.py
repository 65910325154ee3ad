"""`built_data` and `new_data`, which build the trainer of a recorded run with its recorded data or with new samples.

New samples are encoded with the means, deviations and classes in the file ``data.json`` of the run. An override of
``data.path`` or ``data.val_path`` only names the new samples. The section ``data`` is not built with such an override,
because ``data=csv`` would then compute other means and deviations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loopwright.data import NewSamples, Splits, new_samples
from loopwright.errors import SettingError, refuse
from loopwright.experiment.compose.overrides import parse_overrides, typed_value
from loopwright.experiment.gate.budget import Budget
from loopwright.experiment.gate.references import expand
from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.jobs import objects as build
from loopwright.experiment.jobs.check import applied, checked_again, settle
from loopwright.experiment.jobs.job import Job, make_recorded_job
from loopwright.experiment.jobs.job_checker import JobChecker
from loopwright.experiment.jobs.objects import JobObjects, make_trainer
from loopwright.experiment.jobs.recorded import apply_overrides, run_of
from loopwright.experiment.jobs.recorded_data import refuse_other_data, to_use_them, types_data
from loopwright.experiment.jobs.recorded_encoding import refuse_other_encoding, without
from loopwright.records import read_encoding, read_summary, reads_new_samples
from loopwright.trainer import Trainer

_PATHS = ("data.path", "data.val_path")
# Settings of the section ``data`` that also apply to new samples, each with the name of its argument of `new_samples`.
_READING = {
    "batch_size": "batch_size",
    "num_workers": "num_workers",
    "delimiter": "delimiter",
    "decimal": "decimal",
    "encoding": "text_encoding",
}


def chooses_new_data(overrides: Sequence[str], encoding: Mapping[str, Any] | None, split: str) -> bool:
    """Return whether an override names new samples for a run that was trained with a table or a folder of images.

    Args:
        overrides: overrides of the recorded configuration.
        encoding: content of ``data.json`` of the run; None: the run has no such file.
        split: value of the option ``split`` of the command.

    Raises:
        SettingError: for new samples with a ``split`` other than ``val``, and for new samples together with an override
            of a setting that has no effect on new samples.
    """
    path = _typed_path(overrides)
    if path is None or not reads_new_samples(encoding):
        return False
    name = path.partition("=")[0]
    if split != "val":
        raise SettingError("split", f"={split!r}: chooses from the recorded data; leave out split or {name}.")
    for key in (word.partition("=")[0] for word in overrides):
        if key.startswith("data.") and key != name and key.removeprefix("data.") not in _READING:
            problem = f": has no effect together with {name}, because data.json of the run determines the encoding"
            raise SettingError(key, f"{problem}; leave out {key} or {name}.")
    return True


def refuse_unread_path(run_dir: Path, recorded: Mapping[str, Any], overrides: Sequence[str]) -> None:
    """Refuse an override of ``data.path`` or ``data.val_path`` if the data of the run have no such setting.

    Raises:
        SettingError: for such an override. The message names the run directory, because the user may have typed
            ``last`` instead of a directory.
    """
    typed, data = _typed_path(overrides), recorded.get("data")
    if typed is None or not isinstance(data, Mapping):
        return
    name = typed.partition("=")[0]
    if name.removeprefix("data.") not in data:
        given = f": the data of {run_dir}, {str(data.get('_target_')).rpartition('.')[2]}, have no such setting"
        raise SettingError(name, f"{given}; expected a run with data=csv, data=image_folder or data=tensor_file.")


def _typed_path(overrides: Sequence[str]) -> str | None:
    """Return the last override of ``data.path`` or ``data.val_path``, or None."""
    return next((word for word in reversed(overrides) if word.partition("=")[0] in _PATHS), None)


@contextmanager
def built_data(
    run_dir: Path, recorded: Mapping[str, Any], overrides: Sequence[str], checkpoint: Path, trust: Trust
) -> Iterator[tuple[Trainer, Splits]]:
    """Build a trainer and the data of a recorded run. If overrides choose other data, build the other data.

    The trainer writes no files and has no loggers.

    Args:
        run_dir: directory of the recorded run.
        recorded: recorded configuration with the values in `loopwright.experiment.jobs.start.NO_START`.
        overrides: overrides of the recorded configuration.
        checkpoint: checkpoint that the trainer will load, possibly of another run.
        trust: packages that the user trusts.

    Raises:
        SettingError: for an invalid setting, for data that differ from the recorded data although no override chooses
            other data, and for data whose encoding differs from the encoding of the run of ``checkpoint``.
        CheckpointError: if a ``data.json`` cannot be read.
    """

    def make_job(config: dict[str, Any]) -> Job:
        apply_overrides(config, overrides)
        # Loggers are left out, because this trainer does not use them and they may need packages that are missing.
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
    """Build a trainer of a recorded run and a dataloader of new samples. The recorded data are not read.

    Args:
        recorded: recorded configuration.
        overrides: overrides of the recorded configuration, for which `chooses_new_data` returned True.
        encoding: content of ``data.json`` of the run.
        trust: packages that the user trusts.
        has_targets: whether the targets of the new samples are read.

    Raises:
        SettingError: for an invalid setting, and for samples to which the recorded encoding cannot be applied.
    """
    typed = _typed_path(overrides)
    assert typed is not None
    others = [word for word in overrides if word.partition("=")[0] not in _PATHS]
    path, config = _value(typed, trust), dict(recorded)
    apply_overrides(config, others)
    settings = {argument: config["data"][name] for name, argument in _READING.items() if name in config["data"]}
    try:
        samples = new_samples(path, encoding, **settings, has_targets=has_targets)
    except SettingError as error:
        raise error.under("data") from None
    job = make_recorded_job(config | {"loggers": None, "ckpt_path": None}, others, trust)
    with _trainer_of(job, samples, trust) as trainer:
        yield trainer, samples


def _value(override: str, trust: Trust) -> str:
    (parsed,) = parse_overrides([override])
    value = typed_value(parsed)
    if not isinstance(value, str):
        raise refuse(parsed.key_or_group, value, "the path of a table or of a folder of images")
    return expand(value, trust.variables, parsed.key_or_group, Budget())


@contextmanager
def _trainer_of(job: Job, samples: NewSamples, trust: Trust) -> Iterator[Trainer]:
    """Build a trainer for new samples, without the data set of the configuration."""
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
