"""What has to be bitwise the same: resumed or not, validated or not, read by workers or not, once and once more."""

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
_EVERY_STEPS = 3  # between two validations of a run that has any
_VALIDATION_BATCHES = 2


def verify_resume(trials: Trials) -> Found:
    """A run cut in the middle goes on as if it had not been."""
    config = _validating(trials)
    first = Trace(trials.num_steps)
    trials.run(config, first)
    if first.num_steps_done < 2:
        steps = count(first.num_steps_done, "step")
        raise SettingError("loop", f": trains {steps}; expected 2 or more, to cut between them.")
    cut = first.num_steps_done // 2
    with tempfile.TemporaryDirectory() as folder:
        second = Trace(cut, first)
        trial = trials.run(config, second, Path(folder))
        is_cut = second.difference is None
        if is_cut:
            second = Trace(trials.num_steps, first)
            trial = trials.run(config, second, Path(folder))
    did = f"{_steps(first)} straight; cut after step {cut}, built anew and resumed"
    return _compared("resume", did, first, second, trial, is_before=not is_cut)


def verify_validation(trials: Trials) -> Found:
    """Validating changes nothing in what is trained."""
    if not trials.has_validation:
        raise SettingError("data", ": has no validation data; expected some, as validating is what is looked at.")
    # Both validate as their plan says, for callbacks and schedulers may follow that; the second does so in between.
    config = _validating(trials)
    first = Trace(trials.num_steps, with_validation=False)
    trials.run(config, first)
    second = ValidatingTrace(trials.num_steps, first, _few(trials.config))
    trial = trials.run(config, second)
    difference = second.difference
    is_before = difference is not None and difference.step == 1 and difference.kind != "weights"
    did = f"{_steps(first)}; with a validation more after each"
    return _compared("validation", did, first, second, trial, is_before=is_before)


def verify_workers(trials: Trials) -> Found:
    """Workers read the same data."""
    config = _validating(trials)
    first = Trace(trials.num_steps)
    trial = trials.run(_with_workers(trials, config, 0), first)
    _check_workers(trial, 0)
    second = Trace(trials.num_steps, first)
    trial = trials.run(_with_workers(trials, config, _NUM_WORKERS), second)
    _check_workers(trial, _NUM_WORKERS)
    did = f"{_steps(first)} on data read in this process; by {_NUM_WORKERS} workers"
    is_before = second.difference is not None and second.difference.kind != "batch"
    return _compared("workers", did, first, second, trial, is_before=is_before)


def verify_determinism(trials: Trials) -> Found:
    """The same run is the same twice, and every operation of it has a deterministic form."""
    config = _validating(trials)
    first = Trace(trials.num_steps)
    trials.run(config, first)
    second = Trace(trials.num_steps, first)
    trial = trials.run(config, second)
    with _warning_of_indeterminate():
        warned = trials.run(_validating(trials, every_steps=1), Trace(min(2, trials.num_steps))).warnings
    operations = sorted({name for name in map(operation_without_form, warned) if name})
    found = _compared("determinism", f"{_steps(first)}, twice", first, second, trial)
    if not operations:
        return found
    names = ", ".join(operations)
    lines = [f"{names}: no deterministic form in torch; with deterministic=true it is an error that says where"]
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
        ended = [f"after step {each.num_steps_done} ({each.stop_reason or 'its end'})" for each in (first, second)]
        return Found(is_equal=False, did=did, said=f"not equal: the first run ended {ended[0]}, the second {ended[1]}")
    counted = second.num_compared
    kinds = (("weights", "state", "of all weights"), ("loss", "loss", ""), ("batch", "micro-batch", ""))
    compared = ", ".join(f"{count(counted[kind], noun)} {rest}".strip() for kind, noun, rest in kinds)
    rest = ", the optimizer" if what == "validation" else ", the optimizer, the callbacks"
    return Found(is_equal=True, did=did, said=f"bitwise equal: {compared}{rest}")


def _validating(trials: Trials, every_steps: int = _EVERY_STEPS) -> dict[str, Any]:
    """The configuration, validating briefly every few steps where it validates at all."""
    if not trials.config["loop"].get("eval_frequency") or not trials.has_validation:
        return trials.changed()
    return trials.changed(loop__eval_frequency=every_steps, loop__eval_steps=_few(trials.config))


def _few(config: Mapping[str, Any]) -> int:
    given = config["loop"].get("eval_steps")
    return _VALIDATION_BATCHES if given is None else min(given, _VALIDATION_BATCHES)


def _with_workers(trials: Trials, config: Mapping[str, Any], num_workers: int) -> dict[str, Any]:
    return {**config, "data": trials.changed(data__num_workers=num_workers)["data"]}


def _check_workers(trial: Trial, num_workers: int) -> None:
    """Refuse a dataloader that does not do as it is told: what is compared would be the same twice."""
    has = getattr(trial.dataloader, "num_workers", None)
    if has != num_workers:
        name = type(trial.dataloader).__name__
        problem = f"={num_workers}: the training dataloader, a {name}, has {has or 'none'} all the same; expected "
        raise SettingError("data.num_workers", f"{problem}one that has as many, to compare with none.")


def _steps(trace: Trace) -> str:
    return count(trace.num_steps_done, "step")


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
