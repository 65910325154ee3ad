"""Accumulation: the gradients of a batch, cut into micro-batches or not, are the same to rounding.

Every step is compared by itself: the second run makes it with the gradients of the first, so that both begin at the
same weights, whatever an optimizer makes of rounding (Adam turns it into steps where gradients are nearly zero).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from loopwright.errors import SettingError
from loopwright.experiment.verify.compare import Difference, first_difference, sizes
from loopwright.experiment.verify.dropout import WithoutDropout
from loopwright.experiment.verify.explain import explain, is_sum
from loopwright.experiment.verify.found import Found
from loopwright.experiment.verify.runs import Ran, Runs
from loopwright.experiment.verify.trace import Gradients

# Of a tensor's gradient, by norms. What is this small beside the gradient of the whole model is rounding in any case.
_RELATIVE = {torch.float64: 1e-10}
_RELATIVE_OTHERWISE = 1e-4
_OF_THE_WHOLE = 1e-3  # of the tolerance


def verify_accumulation(runs: Runs) -> Found:
    """The gradient of a step does not depend on how its batch is cut."""
    batch_size, grad_accum_steps = _cut(runs.config)
    whole = Gradients(runs.num_steps)
    parts = Gradients(runs.num_steps, whole)
    mode = WithoutDropout()
    # Validations are read in batches of another size here, so there are none.
    loop = {"loop__eval_frequency": None if runs.config["loop"].get("eval_frequency") is None else 1.0}
    with mode:
        config = runs.changed(data__batch_size=batch_size * grad_accum_steps, loop__grad_accum_steps=1, **loop)
        runs.run(config, whole)
        config = runs.changed(data__batch_size=batch_size, loop__grad_accum_steps=grad_accum_steps, **loop)
        ran = runs.run(config, parts)
    num_steps = min(len(whole.gradients), len(parts.gradients))
    cut = f"{grad_accum_steps} micro-batches of {batch_size}"
    did = f"{num_steps} steps on batches of {batch_size * grad_accum_steps} as a whole; cut into {cut}"
    remarks = ["dropout is switched off in both: it draws anew for each micro-batch"] if mode.has_dropped else []
    difference = _differing_samples(whole, parts)
    if difference is None:
        return _judge(whole, parts, ran, num_micro_batches=grad_accum_steps, did=did, remarks=remarks)
    return Found(
        is_equal=False,
        did=did,
        said=f"not equal: {difference}",
        explanations=explain("accumulation", difference, ran.model, ran.dataloader),
        remarks=remarks,
    )


def _cut(config: Mapping[str, Any]) -> tuple[int, int]:
    """Micro-batch and number of them: as configured, or the batch in as few equal parts as there are."""
    batch_size, grad_accum_steps = config["data"].get("batch_size"), config["loop"].get("grad_accum_steps", 1)
    if type(batch_size) is not int or batch_size * grad_accum_steps < 2:
        raise SettingError("data.batch_size", f"={batch_size}: expected 2 or more, to cut a batch.")
    if grad_accum_steps > 1:
        return batch_size, grad_accum_steps
    parts = next(number for number in range(2, batch_size + 1) if batch_size % number == 0)
    return batch_size // parts, parts


def _differing_samples(whole: Gradients, parts: Gradients) -> Difference | None:
    """Where the micro-batches of a step, joined, are not the batch."""
    for step, (batches, micro_batches) in enumerate(zip(whole.samples, parts.samples, strict=False), start=1):
        joined = {name: _join([each.get(name) for each in micro_batches]) for name in micro_batches[0]}
        found = first_difference(step, "batch", batches[0], joined)
        if found is not None:
            return found
    return None


def _join(values: Sequence[Any]) -> Any:
    if all(isinstance(value, Tensor) and value.ndim for value in values):
        return torch.cat([*values])
    return values[0]


def _judge(
    whole: Gradients, parts: Gradients, ran: Ran, *, num_micro_batches: int, did: str, remarks: list[str]
) -> Found:
    worst, first, ratio = _compare(whole, parts)
    if worst is None:
        raise SettingError("optimizer", ": no gradient reached it; expected a step, to compare gradients of.")
    if first is None:
        said = f"equal to rounding: {len(whole.gradients[0])} gradients a step; the worst, {worst}"
        return Found(is_equal=True, did=did, said=said, remarks=remarks)
    explanations = explain("accumulation", first, ran.model, ran.dataloader)
    if is_sum(ratio, num_micro_batches):
        explanations = [
            f"gradients are 1/{num_micro_batches} of those of the whole batch: a loss that is a sum over the samples; "
            "expected a mean, or num_items beside it",
            *explanations,
        ]
    return Found(is_equal=False, did=did, said=f"not equal: {first}", explanations=explanations, remarks=remarks)


def _compare(whole: Gradients, parts: Gradients) -> tuple[Difference | None, Difference | None, float]:
    """The worst difference for its tolerance, the first beyond it, and how long cut gradients are beside whole ones."""
    worst, first, most, products, squares = None, None, -1.0, 0.0, 0.0
    for step, (ours, theirs) in enumerate(zip(whole.gradients, parts.gradients, strict=False), start=1):
        for name, gradient in ours.items():
            other = theirs.get(name)
            if other is None:
                first = first or first_difference(step, "gradient", {name: gradient}, {})
                continue
            beyond = _beyond(gradient, other, ours)
            products += float((gradient.double() * other.double()).sum())
            squares += float(gradient.double().square().sum())
            if beyond <= most:
                continue
            absolute, relative = sizes(gradient, other)
            found = Difference(step=step, kind="gradient", name=name, absolute=absolute, relative=relative, values="")
            most, worst = beyond, found
            if not beyond <= 1:
                first = first or found
    return worst or first, first, products / squares if squares else math.nan


def _beyond(gradient: Tensor, other: Tensor, all_of_step: Mapping[str, Tensor]) -> float:
    """The difference in units of what is taken for rounding."""
    relative = _RELATIVE.get(gradient.dtype, _RELATIVE_OTHERWISE)
    total = math.sqrt(sum(float(each.double().square().sum()) for each in all_of_step.values()))
    allowed = relative * max(float(gradient.double().norm()), _OF_THE_WHOLE * total)
    apart = float((gradient.double() - other.double()).norm())
    return apart / allowed if allowed else 0.0 if apart == 0 else math.inf
