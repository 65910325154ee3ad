"""`history_notes`: returns notes about the resumes and the data of a recorded run, for the command ``reproduce``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from loopwright.experiment.jobs.objects import JobObjects
from loopwright.experiment.jobs.rate_curve import depends_on_length
from loopwright.plan import Plan

_PARTS = {"train": "training", "val": "validation"}
_OTHER = {"train": "val", "val": "train"}
_MAX_DIFFERENCES = 3  # maximum number of printed differences of the environment


class Note(NamedTuple):
    """A line that is printed before a run is repeated.

    Attributes:
        text: the line.
        cause: short description for a list of possible causes of a difference; None if the note describes no cause.
        rules_out: whether a repeated run cannot give equal results.
    """

    text: str
    cause: str | None
    rules_out: bool = False


def history_notes(summary: Mapping[str, Any], plan: Plan | None, objects: JobObjects) -> list[Note]:
    """Return notes about the extensions of a run, the resumes of the run, and data without a recorded hash.

    Args:
        summary: summary of the recorded run. The summary may contain invalid values.
        plan: plan with which the run is repeated; None for a validation.
        objects: data, optimizer, schedulers and other objects with which the run is repeated.
    """
    recorded = summary.get("resumes")
    resumes = [each for each in recorded if isinstance(each, dict)] if isinstance(recorded, list) else []
    extensions = [each for each in map(_read_extension, resumes) if each is not None]
    notes = _data_notes(summary, trains=plan is not None, validates=objects.data.val is not None)
    notes += _resume_notes(resumes, num_extensions=len(extensions))
    if extensions and plan is not None:
        first, last = extensions[0].old_stop, extensions[-1].new_stop
        extended = f"This run was extended from {first:,} to {last:,} steps. The extension"
        has_changed = any(_changed_rates(each, plan, objects) for each in extensions)
        text = f"{extended} did not change the learning rate. Metrics logged around step {first:,} may still differ."
        if has_changed:
            text = f"{extended} changed the learning rate, so the run cannot be reproduced exactly."
        notes.append(Note(text, f"the extension from {first:,} to {last:,} steps", rules_out=has_changed))
    return notes


class _Extension(NamedTuple):
    """A resume at ``step`` that moved the end of the run from ``old_stop`` to ``new_stop``."""

    step: int
    old_stop: int
    new_stop: int


def _read_extension(resume: Mapping[str, Any]) -> _Extension | None:
    """Return the extension that a resume recorded; None if the resume recorded no extension or invalid steps."""
    recorded = resume.get("extended")
    if not isinstance(recorded, dict):
        return None
    values = [recorded.get(name) for name in ("global_step", "stop_step", "new_stop_step")]
    steps = [value for value in values if type(value) is int]
    is_valid = len(steps) == len(values) and 0 <= steps[0] <= steps[1] < steps[2]
    return _Extension(*steps) if is_valid else None


def _changed_rates(extension: _Extension, plan: Plan, objects: JobObjects) -> bool:
    """Return whether the learning rates before an extension differ between the recorded run and ``plan``."""
    if not plan.start_step <= extension.step:
        return False
    lengths = (extension.old_stop - plan.start_step, plan.fit_steps)
    num_steps = min(extension.step - plan.start_step, plan.fit_steps)
    return depends_on_length(objects.optimizer, objects.schedulers, num_steps, lengths, plan.steps_per_epoch)


def _resume_notes(resumes: list[dict[str, Any]], num_extensions: int) -> list[Note]:
    """Return a list with one note about all resumes, or an empty list.

    The list is empty if all resumes were extensions in the original environment, because `history_notes` adds a note
    about the extensions. The note describes a cause only if a resume used another environment.
    """
    times = "once" if len(resumes) == 1 else f"{len(resumes):,} times"
    elsewhere = [each["differences"] for each in resumes if each.get("differences")]
    if len(resumes) == num_extensions and not elsewhere:
        return []
    if not elsewhere:
        return [Note(f"resumed: {times}; now the run is repeated without interruption", None)]
    found = elsewhere[0] if isinstance(elsewhere[0], list) else [elsewhere[0]]
    shown = "; ".join(map(str, found[:_MAX_DIFFERENCES]))
    where = f"{len(elsewhere):,} of these in another environment ({shown})"
    return [Note(f"resumed: {times}, {where}", "a resume in another environment")]


def _data_notes(summary: Mapping[str, Any], *, trains: bool, validates: bool) -> list[Note]:
    data = summary.get("data")
    hashed = [name for name in data if name.endswith("sha256")] if isinstance(data, dict) else []
    used = [name for name, is_used in (("train", trains), ("val", validates)) if is_used]
    # A hash whose name begins with neither ``train`` nor ``val`` covers both the training and the validation data.
    lacking = [name for name in used if all(other.startswith(_OTHER[name]) for other in hashed)]
    if not lacking:
        return []
    data_names = " and ".join(_PARTS[name] for name in lacking)
    why = "was recorded, because only Loopwright's own data sets of at most 256 MiB are hashed"
    name = "sha256" if len(lacking) > 1 else f"{lacking[0]}_sha256"
    function = "from the function that creates the data"
    remedy = f"to record a hash in new runs, return Splits(…, facts={{'{name}': …}}) with your own hash {function}"
    return [Note(f"data: no hash of the {data_names} data {why}; {remedy}", f"other {data_names} data")]
