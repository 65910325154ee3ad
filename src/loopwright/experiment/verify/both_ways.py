"""Functions that verify resume, validation, workers and determinism: two runs must be bitwise equal."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from loopwright.device import operation_without_form
from loopwright.errors import SettingError
from loopwright.experiment.verify.explain import Evidence, explain
from loopwright.experiment.verify.found import Found, count
from loopwright.experiment.verify.trace import Trace, ValidatingTrace
from loopwright.experiment.verify.trials import Trial, Trials

_NUM_WORKERS = 2
_EVERY_STEPS = 3  # number of steps between two validations, if the configuration has validations
_VALIDATION_BATCHES = 2


def verify_resume(trials: Trials) -> Found:
    """Verify that an interrupted and resumed run is equal to an uninterrupted run."""
    config = validating(trials)
    first = Trace(trials.num_steps)
    trials.run(config, first)
    if first.num_steps_done < 2:
        steps = count(first.num_steps_done, "step")
        raise SettingError(
            "loop", f": trains {steps}; expected 2 or more, so that the run can be interrupted in the middle."
        )
    cut = first.num_steps_done // 2
    with tempfile.TemporaryDirectory() as folder:
        second = Trace(cut, first)
        trial = trials.run(config, second, Path(folder))
        is_cut = second.difference is None
        if is_cut:
            second = Trace(trials.num_steps, first)
            trial = trials.run(config, second, Path(folder))
    did = f"{_steps(first)} without interruption; interrupted after step {cut}, rebuilt and resumed"
    return _compared("resume", did, first, second, trial, is_before=not is_cut)


def verify_validation(trials: Trials) -> Found:
    """Verify that an additional validation after each step does not change training."""
    if not trials.has_validation:
        raise SettingError("data", ": has no validation data; verify validation needs them.")
    # Callbacks and schedulers may depend on the planned validations, so both runs carry out these validations. The
    # second run carries out additional validations.
    config = validating(trials)
    first = Trace(trials.num_steps, with_validation=False)
    trials.run(config, first)
    second = ValidatingTrace(trials.num_steps, first, _few(trials.config))
    trial = trials.run(config, second)
    difference = second.difference
    is_before = difference is not None and difference.step == 1 and difference.kind != "weights"
    did = f"first run: {_steps(first)}; second run: an additional validation after each step"
    return _compared("validation", did, first, second, trial, is_before=is_before)


def verify_workers(trials: Trials) -> Found:
    """Verify that dataloader worker processes read the same data as the main process."""
    config = validating(trials)
    first = Trace(trials.num_steps)
    trial = trials.run(_with_workers(trials, config, 0), first)
    _check_workers(trial, 0)
    second = Trace(trials.num_steps, first)
    trial = trials.run(_with_workers(trials, config, _NUM_WORKERS), second)
    _check_workers(trial, _NUM_WORKERS)
    did = f"{_steps(first)} on data read in this process; on data read by {_NUM_WORKERS} workers"
    is_before = second.difference is not None and second.difference.kind != "batch"
    return _compared("workers", did, first, second, trial, is_before=is_before)


def verify_determinism(trials: Trials) -> Found:
    """Verify that two runs of the configuration are equal.

    Also verify that torch has a deterministic implementation of every operation in the run.
    """
    config = validating(trials)
    first = Trace(trials.num_steps)
    trials.run(config, first)
    second = Trace(trials.num_steps, first)
    trial = trials.run(config, second)
    with _warning_of_nondeterminism():
        warned = trials.run(validating(trials, every_steps=1), Trace(min(2, trials.num_steps))).warnings
    operations = sorted({name for name in map(operation_without_form, warned) if name})
    found = _compared("determinism", f"{_steps(first)}, twice", first, second, trial)
    if not operations:
        return found
    names = ", ".join(operations)
    lines = [f"{names}: torch has no deterministic implementation; with deterministic=true, a call raises an error"]
    if found.is_equal:
        said = f"not deterministic: {names}, although these two runs are bitwise equal"
        return Found(is_equal=False, did=found.did, said=said, explanations=lines)
    return Found(is_equal=False, did=found.did, said=found.said, explanations=[*lines, *found.explanations])


def _compared(what: str, did: str, first: Trace, second: Trace, trial: Trial, *, is_before: bool = False) -> Found:
    difference = second.difference
    if difference is not None:
        evidence = Evidence(
            model=trial.model,
            dataloader=trial.dataloader,
            is_before=is_before,
            changed_attributes=first.changed_attributes,
            changed_weights=second.changed_weights if isinstance(second, ValidatingTrace) else (),
        )
        explanations = explain(what, difference, evidence)
        return Found(is_equal=False, did=did, said=f"not equal: {difference}", explanations=explanations)
    if second.num_steps_done != first.num_steps_done:
        ended = [
            f"after step {each.num_steps_done} ({each.stop_reason or 'end of the plan'})" for each in (first, second)
        ]
        return Found(
            is_equal=False, did=did, said=f"not equal: the first run ended {ended[0]}, the second run {ended[1]}"
        )
    counted = second.num_compared
    kinds = (("weights", "state", "of all weights"), ("loss", "loss", ""), ("batch", "micro-batch", ""))
    compared = ", ".join(f"{count(counted[kind], noun)} {rest}".strip() for kind, noun, rest in kinds)
    rest = ", the optimizer" if what == "validation" else ", the optimizer, the callbacks"
    return Found(is_equal=True, did=did, said=f"bitwise equal: {compared}{rest}")


def validating(trials: Trials, every_steps: int = _EVERY_STEPS) -> dict[str, Any]:
    """Return the configuration. Validations, if it has any, are shortened and run every ``every_steps`` steps."""
    if not trials.config["loop"].get("eval_frequency") or not trials.has_validation:
        return trials.changed()
    return trials.changed(loop__eval_frequency=every_steps, loop__eval_steps=_few(trials.config))


def _few(config: Mapping[str, Any]) -> int:
    given = config["loop"].get("eval_steps")
    return _VALIDATION_BATCHES if given is None else min(given, _VALIDATION_BATCHES)


def _with_workers(trials: Trials, config: Mapping[str, Any], num_workers: int) -> dict[str, Any]:
    return {**config, "data": trials.changed(data__num_workers=num_workers)["data"]}


def _check_workers(trial: Trial, num_workers: int) -> None:
    """Raise a `SettingError` if a dataloader ignores ``num_workers``: both runs would have equal numbers of workers."""
    has = getattr(trial.dataloader, "num_workers", None)
    if has != num_workers:
        name = type(trial.dataloader).__name__
        problem = f"={num_workers}: the training dataloader ({name}) has {has or 'none'}; expected a "
        raise SettingError("data.num_workers", f"{problem}dataloader with data.num_workers workers.")


def _steps(trace: Trace) -> str:
    return count(trace.num_steps_done, "step")


@contextmanager
def _warning_of_nondeterminism() -> Iterator[None]:
    """While the context is open, torch warns of each operation without a deterministic implementation."""
    before = torch.are_deterministic_algorithms_enabled()
    warned_before = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warned_before)
