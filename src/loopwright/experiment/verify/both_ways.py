"""What has to be bitwise the same: resumed or not, validated or not, read by workers or not, once and once more."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from loopwright.errors import SettingError
from loopwright.experiment.verify.explain import explain
from loopwright.experiment.verify.found import Found
from loopwright.experiment.verify.runs import Ran, Runs
from loopwright.experiment.verify.trace import Trace

_NUM_WORKERS = 2
_EVERY_STEPS = 3  # between two validations of a run that has any
_VALIDATION_BATCHES = 2
_INDETERMINATE = re.compile(r"(\S+) does not have a deterministic implementation")


def verify_resume(runs: Runs) -> Found:
    """A run cut in the middle goes on as if it had not been."""
    config = _validating(runs)
    first = Trace(runs.num_steps, with_metrics=True)
    runs.run(config, first)
    if first.num_steps_done < 2:
        raise SettingError("loop", f": trains {first.num_steps_done} steps; expected 2 or more, to cut between them.")
    cut = first.num_steps_done // 2
    with tempfile.TemporaryDirectory() as folder:
        second = Trace(cut, first, with_metrics=True)
        ran = runs.run(config, second, run_dir=Path(folder))
        if second.difference is None:
            second = Trace(runs.num_steps, first, with_metrics=True)
            ran = runs.run(config, second, run_dir=Path(folder), resume_from=Path(folder))
    did = f"{_steps(first)} straight; cut after step {cut}, built anew and resumed"
    return _compared("resume", did, first, second, ran)


def verify_validation(runs: Runs) -> Found:
    """Validating changes nothing in what is trained."""
    if not runs.has_validation:
        raise SettingError(
            "data", ": has no validation data; expected some, to see whether validating changes the run."
        )
    first = Trace(runs.num_steps)
    # Once at its end, to which it does not come: callbacks and schedulers may need a plan that validates.
    runs.run(runs.changed(loop__eval_frequency=1.0, loop__eval_steps=_few(runs.config)), first)
    second = Trace(runs.num_steps, first)
    ran = runs.run(runs.changed(loop__eval_frequency=1, loop__eval_steps=_few(runs.config)), second)
    return _compared("validation", f"{_steps(first)} without a validation; with one after each", first, second, ran)


def verify_workers(runs: Runs) -> Found:
    """Workers read the same data."""
    first = Trace(runs.num_steps)
    config = _validating(runs)
    runs.run(_with_workers(runs, config, 0), first)
    second = Trace(runs.num_steps, first)
    ran = runs.run(_with_workers(runs, config, _NUM_WORKERS), second)
    did = f"{_steps(first)} on data read in this process; by {_NUM_WORKERS} workers"
    return _compared("workers", did, first, second, ran)


def verify_determinism(runs: Runs) -> Found:
    """The same run is the same twice, and every operation of it has a deterministic form."""
    config = _validating(runs)
    first = Trace(runs.num_steps, with_metrics=True)
    runs.run(config, first)
    second = Trace(runs.num_steps, first, with_metrics=True)
    ran = runs.run(config, second)
    with _warning_of_indeterminate():
        warned = runs.run(config, Trace(min(2, runs.num_steps))).warnings
    operations = sorted({match[1] for match in map(_INDETERMINATE.match, warned) if match})
    found = _compared("determinism", f"{_steps(first)}, twice", first, second, ran)
    if not operations:
        return found
    names = ", ".join(operations)
    lines = [f"{names}: no deterministic form in torch; with deterministic=true it is an error that says where"]
    if found.is_equal:
        said = f"not deterministic: {names}, although these two runs are bitwise equal"
        return Found(is_equal=False, did=found.did, said=said, explanations=lines)
    return Found(is_equal=False, did=found.did, said=found.said, explanations=[*lines, *found.explanations])


def _compared(what: str, did: str, first: Trace, second: Trace, ran: Ran) -> Found:
    difference = second.difference
    if difference is None and second.num_steps_done != first.num_steps_done:
        ended = f"the first run ended after step {first.num_steps_done}, the second after {second.num_steps_done}"
        return Found(is_equal=False, did=did, said=f"not equal: {ended}")
    if difference is None:
        counted = second.num_compared
        compared = (
            f"{counted['weights']} states of all weights, {counted['loss']} losses, {counted['batch']} micro-batches"
        )
        return Found(is_equal=True, did=did, said=f"bitwise equal: {compared}, the optimizer, the callbacks")
    return Found(
        is_equal=False,
        did=did,
        said=f"not equal: {difference}",
        explanations=explain(what, difference, ran.model, ran.dataloader),
    )


def _validating(runs: Runs) -> dict[str, Any]:
    """The configuration, validating briefly every few steps where it validates at all."""
    if not runs.config["loop"].get("eval_frequency") or not runs.has_validation:
        return runs.changed()
    return runs.changed(loop__eval_frequency=_EVERY_STEPS, loop__eval_steps=_few(runs.config))


def _few(config: Mapping[str, Any]) -> int:
    given = config["loop"].get("eval_steps")
    return _VALIDATION_BATCHES if given is None else min(given, _VALIDATION_BATCHES)


def _with_workers(runs: Runs, config: Mapping[str, Any], num_workers: int) -> dict[str, Any]:
    return {**config, "data": runs.changed(data__num_workers=num_workers)["data"]}


def _steps(trace: Trace) -> str:
    return f"{trace.num_steps_done} steps"


@contextmanager
def _warning_of_indeterminate() -> Iterator[None]:
    """Let torch warn of operations that have no deterministic form."""
    before = torch.are_deterministic_algorithms_enabled()
    warned_before = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warned_before)
