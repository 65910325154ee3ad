"""The command ``loopwright reproduce DIR``, which repeats a recorded run and compares the results of the two runs."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from loopwright import __version__
from loopwright.errors import SettingError, on_one_line
from loopwright.experiment.compose.overrides import parse_overrides, typed_value
from loopwright.experiment.console.command_line import CommandLine
from loopwright.experiment.console.messages import tell
from loopwright.experiment.gate.budget import MAX_CHARACTERS
from loopwright.experiment.gate.masking import masking
from loopwright.experiment.gate.references import is_only_reference, refuse_in_path
from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.jobs.check import checked_again
from loopwright.experiment.jobs.job import Job, chosen_in, make_recorded_job
from loopwright.experiment.jobs.recorded import apply_overrides, differences, read_recorded
from loopwright.experiment.jobs.recorded_data import data_differences, started_in
from loopwright.experiment.jobs.typed_lengths import settle_lengths
from loopwright.experiment.launch.rank import directory_of_launch, joined
from loopwright.experiment.launch.run_job import run_job, starts_processes
from loopwright.experiment.rundir.directory import OUTPUTS, allocate, check_usable, use
from loopwright.experiment.rundir.environment import environment, recorded_threads
from loopwright.experiment.rundir.git_state import git_state
from loopwright.experiment.rundir.origin import origin_digests, origins
from loopwright.experiment.runs.ending import RunRequest
from loopwright.experiment.verify.found import count
from loopwright.experiment.verify.history import history_notes
from loopwright.experiment.verify.reproduction import compare, read_outcome
from loopwright.loop import TrainingLoop
from loopwright.records import comparable, read_environment, read_record, read_summary
from loopwright.records.origins import digests_of
from loopwright.seeding import draw_seed

_MAX_DIFF_BYTES = 1 << 30
_DIRECTORY = "hydra.run.dir"
_MAX_CHARACTERS = 300  # maximum length of a line that describes a difference
_MEANS = "train/<metric> was the value of the log step, and is now the mean since the last log step"
_MAX_REPEATED = 10  # maximum number of differences that are listed again after the verdict


def reproduce(line: CommandLine, trust: Trust) -> int:
    """Repeat a recorded run in a new directory.

    The command prints the changes of the configuration, the data and the environment. Then the command carries out the
    new run, and compares the new results with the recorded results. No file of the recorded run is changed.

    If the recorded run was resumed, the new run trains without interruption. If the recorded run was extended, and its
    learning rates depend on its length, no new run can give equal results. In this case, a new run is started only if
    the user gives overrides.

    Overrides change recorded values, and are printed as changes of the configuration. The setting ``hydra.run.dir``
    names the directory of the new run.

    Returns:
        0 if all recorded results are bitwise equal to the new results; 1 if a result differs, or if no run was started.
        If there are too few results to compare, the exit code of the new run, or 1 if the new run succeeded.

    Raises:
        SettingError: if the directory contains no run, if a setting is wrong, or if the new directory is inside the
            recorded run or contains another run.
        CheckpointError: if a checkpoint from which the recorded run started does not exist, or if a recorded file
            cannot be read or is too large.
    """
    assert line.directory is not None
    directory = Path(line.directory)
    recorded = read_recorded(directory)
    overrides, typed = _without_directory(line.overrides)
    config = _with_overrides(recorded, overrides)
    summary = read_summary(directory)

    def make_job(located: dict[str, Any]) -> Job:
        made = _with_overrides(located, overrides, config.get("seed"))
        job = make_recorded_job(made, line.overrides, trust)
        _check_place(directory, typed, job.settings.name)
        return replace(job, chosen=chosen_in(summary.get("chosen")))

    num_threads = recorded_threads(directory)
    with (
        joined(config["device"], trust) as ranks,
        checked_again(make_job, recorded, summary, trust, num_threads, compares_data=False) as ready,
    ):
        is_training, data = isinstance(ready.objects.loop, TrainingLoop), ready.objects.data
        there = read_outcome(directory, is_training=is_training)
        changes = [*_edits(directory, summary), *differences(recorded, settle_lengths(config, overrides).config)]
        changes += [*_changed_origins(summary, ready.job, masking(trust)), *data_differences(summary, data)]
        changes += _changes_around(directory, trust, ready.job.num_threads)
        changes += _other_means(directory, ready.job) if is_training else []
        changes = [on_one_line(each, _MAX_CHARACTERS) for each in changes]
        notes = history_notes(summary, ready.plan.plan, ready.objects)
        head = (
            f"What differs from {directory}:"
            if changes
            else f"The configuration, data and environment recorded in {directory} are unchanged."
        )
        said = [*changes, *(on_one_line(note.text, _MAX_CHARACTERS) for note in notes)]
        tell("\n".join([head, *(f"  {each}" for each in said)]))
        if any(note.rules_out for note in notes) and not overrides:
            tell("Not reproduced: nothing was trained.")
            return 1
        place = directory_of_launch(ranks, partial(_make_directory, ready.job.settings.name, typed))
        request = RunRequest(
            job=ready.job, directory=place, words=["loopwright", *line.words], trust=trust, objects=ready.objects
        )
        del ready  # only the request refers to the objects now
        if starts_processes(request.job, ranks):
            request = replace(request, objects=None)
        exit_code = run_job(request, ranks)
    if ranks.rank:
        return exit_code
    verdict = compare(there, read_outcome(place, is_training=is_training))
    if verdict.is_reproduced:
        tell(verdict.text)
        return 0
    if verdict.is_reproduced is None:
        tell(verdict.text)
        return exit_code or 1
    tell(f"{verdict.text}\n{_reasons([*changes, *(note.cause for note in notes if note.cause is not None)])}")
    return 1


def _make_directory(name: str, typed: str | None) -> Path:
    return allocate(name, is_sweep=False) if typed is None else use(_DIRECTORY, typed)


def _without_directory(words: Sequence[str]) -> tuple[list[str], str | None]:
    """Return the overrides without ``hydra.run.dir``, and the value of ``hydra.run.dir`` if it is given."""
    own = [word for word in words if word.startswith(f"{_DIRECTORY}=")]
    typed = parse_overrides(own)
    if any(each.is_sweep_override() or not each.value() for each in typed):
        raise SettingError(own[0], f": expected one directory; {_DIRECTORY}=DIR.")
    value = str(typed_value(typed[0])) if typed else None
    if is_only_reference(value):
        raise refuse_in_path(_DIRECTORY)
    return [word for word in words if word not in own], value


def _with_overrides(recorded: Mapping[str, Any], overrides: Sequence[str], seed: int | None = None) -> dict[str, Any]:
    """Return a copy of a configuration with overrides applied. Replace the seed null by ``seed`` or a random number."""
    config = copy.deepcopy(dict(recorded))
    apply_overrides(config, overrides)
    if config.get("seed", 0) is None:
        config["seed"] = draw_seed() if seed is None else seed
    return config


def _check_place(directory: Path, typed: str | None, name: str) -> None:
    """Raise a `SettingError` if the new directory is inside the recorded run, or contains another run."""
    place = OUTPUTS / name if typed is None else Path(typed)
    if directory.resolve() in (place.resolve(), *place.resolve().parents):
        problem = f"={str(place)!r}: is inside the run to reproduce; name a new directory outside it."
        raise SettingError(_DIRECTORY, problem)
    if typed is not None:
        check_usable(_DIRECTORY, place)


def _edits(directory: Path, summary: Mapping[str, Any]) -> list[str]:
    """Return a line if ``config.yaml`` was changed after the run had written this file."""
    digest = summary.get("config_sha256")
    text = read_record(directory / "config.yaml", MAX_CHARACTERS) or b""
    is_own = digest is None or digest == hashlib.sha256(text).hexdigest()
    return [] if is_own else ["config.yaml: changed since the run wrote it; the changed file is used"]


def _changed_origins(summary: Mapping[str, Any], job: Job, mask: Callable[[str], str]) -> list[str]:
    """Return a line for each checkpoint that was replaced after the recorded run started from it or validated it."""
    before = digests_of(summary)
    if not before:
        return []
    now = {mask(name): digest for name, digest in origin_digests(origins(job.settings)).items()}
    directory = started_in(summary) or Path()
    absolute = {str(directory / name): name for name in before}  # the recorded paths may be relative
    return differences(before, {absolute.get(name, name): digest for name, digest in now.items()}, "origins")


def _changes_around(directory: Path, trust: Trust, num_threads: int) -> list[str]:
    """Return a line for each difference of the environment, and a line if the uncommitted changes differ.

    Args:
        directory: recorded run directory.
        trust: packages that the user trusts.
        num_threads: number of threads for CPU operations in the new run.
    """
    there = read_environment(directory)
    if not there:
        return ["environment: not recorded"]
    git, diff = git_state(Path.cwd())
    here = json.loads(json.dumps(environment(num_threads, git, trust)))
    before, now = comparable([there, here])
    return [*differences(before, now), *_source_changes(directory, diff)]


def _other_means(directory: Path, job: Job) -> list[str]:
    """Return a line if the run was recorded by a version that did not average the training metrics between log steps.

    Such versions did not record the version of Loopwright. If every step is logged, all versions record equal metrics.
    """
    there = read_environment(directory)
    if not there or "loopwright" in there or job.settings.log_every_n_steps == 1:
        return []
    return [f"loopwright: an older version recorded, {__version__} now: {_MEANS}"]


def _source_changes(directory: Path, diff: str | None) -> list[str]:
    """Return a line if ``diff``, the current uncommitted changes, differs from the recorded ``git.diff``."""
    then = read_record(directory / "git.diff", _MAX_DIFF_BYTES)
    now = None if diff is None else diff.encode()
    if then == now or (not then and not now):
        return []
    recorded = f"{count(_num_lines(then), 'line')} in the recorded git.diff" if then else "none recorded"
    return [f"uncommitted changes differ: {recorded}, {count(_num_lines(now), 'line') if now else 'none'} now"]


def _num_lines(text: bytes) -> int:
    """Return the number of lines. `bytes.splitlines` would need memory for a copy of the text."""
    return text.count(b"\n") + (not text.endswith(b"\n"))


def _reasons(found: Sequence[str]) -> str:
    """Return a line that lists possible causes of a difference in the results."""
    if not found:
        return (
            "The recorded configuration, data and environment are all unchanged. To find operations that are not "
            "deterministic, use deterministic=true."
        )
    more = f"; and {len(found) - _MAX_REPEATED} more, above" if len(found) > _MAX_REPEATED else ""
    return f"Possible causes: {'; '.join(found[:_MAX_REPEATED])}{more}."
