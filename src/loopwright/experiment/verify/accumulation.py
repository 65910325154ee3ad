"""Accumulation: the gradients of a batch, cut into micro-batches or not, are the same to rounding.

Every step is compared by itself: the second run makes it with the gradients of the first, so that both begin at the
same weights, whatever an optimizer makes of rounding (Adam turns it into steps where gradients are nearly zero).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from loopwright.errors import SettingError
from loopwright.experiment.verify.dropout import WithoutDropout
from loopwright.experiment.verify.equality import Difference, first_difference, is_same, sizes
from loopwright.experiment.verify.explain import Evidence, explain, is_sum
from loopwright.experiment.verify.found import Found, count
from loopwright.experiment.verify.samples import compare_samples
from loopwright.experiment.verify.trace import Gradients
from loopwright.experiment.verify.trials import Trials

# Of a tensor's gradient, by norms. What is this small beside the gradient of the whole model is rounding in any case.
_RELATIVE = {torch.float64: 1e-10}
_RELATIVE_OTHERWISE = 1e-4
_OF_THE_WHOLE = 1e-3  # of the tolerance
_NUM_ULPS = 4.0  # of a type of 16 bits, in which a forward has computed anything


def verify_accumulation(trials: Trials) -> Found:
    """The gradient of a step does not depend on how its batch is cut."""
    batch_size, grad_accum_steps = _cut(trials.config)
    size = batch_size * grad_accum_steps
    whole = Gradients(trials.num_steps)
    parts = Gradients(trials.num_steps, whole)
    mode = WithoutDropout()
    # Validations are read in batches of another size here, so there are none.
    loop = {"loop__eval_frequency": None if trials.config["loop"].get("eval_frequency") is None else 1.0}
    with mode:
        trials.run(trials.changed(data__batch_size=size, loop__grad_accum_steps=1, **loop), whole)
        config = trials.changed(data__batch_size=batch_size, loop__grad_accum_steps=grad_accum_steps, **loop)
        with _saying_that_it_was_cut(batch_size, grad_accum_steps):
            trial = trials.run(config, parts)
    samples = compare_samples(whole.samples, parts.samples)
    num_steps = samples.num_steps
    least = max((_NUM_ULPS * torch.finfo(each).eps for each in mode.half_types), default=0.0)
    worst, first, ratio = _compare(whole, parts, num_steps, least)
    cut = f"{count(grad_accum_steps, 'micro-batch')} of {batch_size}"
    did = f"{count(num_steps, 'step')} on batches of {size} as a whole; cut into {cut}"
    remarks = [*samples.remarks]
    if mode.has_dropped:
        remarks.append("dropout is switched off in both: it draws anew for each micro-batch")
    if mode.half_types:
        types = " and ".join(sorted(str(each).removeprefix("torch.") for each in mode.half_types))
        remarks.append(f"computed in {types} in part, so that gradients are compared to {least:.2g}")
    # A loader that fills each batch gives them one length; that of a joined text is any.
    has_other_rows = max(parts.num_rows, default=0) > batch_size and len({*parts.num_rows[:grad_accum_steps]}) > 1
    evidence = Evidence(
        model=trial.model,
        dataloader=trial.dataloader,
        changed_in_forward=parts.changed,
        num_rows=parts.num_rows if has_other_rows else (),
        has_drawn=parts.has_drawn,
        has_batch_statistics=mode.has_batch_statistics,
    )
    are_equal = worst is not None and first is None
    if samples.difference is not None and are_equal:
        remarks.append(f"{samples.difference}: not cut by samples, as it seems")
    elif samples.difference is not None and not has_other_rows:
        said, explanations = f"not equal: {samples.difference}", explain("accumulation", samples.difference, evidence)
        return Found(is_equal=False, did=did, said=said, explanations=explanations, remarks=remarks)
    if worst is None:
        raise SettingError("optimizer", ": no gradient reached it; expected a step, to compare gradients of.")
    if first is None:
        said = f"equal to rounding: {count(len(whole.gradients[0]), 'gradient')} a step; the worst, {worst}"
        return Found(is_equal=True, did=did, said=said, remarks=remarks)
    explanations = explain("accumulation", first, evidence)
    if is_sum(ratio, grad_accum_steps):
        explanations = [
            f"gradients are 1/{grad_accum_steps} of those of the whole batch: a loss that is a sum over the samples; "
            "expected a mean, or num_items beside it",
            *explanations,
        ]
    return Found(is_equal=False, did=did, said=f"not equal: {first}", explanations=explanations, remarks=remarks)


def _cut(config: Mapping[str, Any]) -> tuple[int, int]:
    """Micro-batch and number of them: as configured, or else the batch in two, of no fewer samples than it has."""
    batch_size, grad_accum_steps = config["data"].get("batch_size"), config["loop"].get("grad_accum_steps", 1)
    if type(batch_size) is not int:
        raise SettingError("data.batch_size", f"={batch_size}: expected a whole number, to cut a batch.")
    if grad_accum_steps > 1:
        return batch_size, grad_accum_steps
    return max(-(-batch_size // 2), min(batch_size, 2)), 2


@contextmanager
def _saying_that_it_was_cut(batch_size: int, grad_accum_steps: int) -> Iterator[None]:
    """Tell, with what a run raises of its micro-batches, whose choice these were."""
    how = f"(verify cut each batch into {count(grad_accum_steps, 'micro-batch')} of {batch_size})"
    try:
        yield
    except SettingError as error:
        raise type(error)(error.setting, f"{error.problem} {how}") from error
    except Exception as error:
        error.add_note(how)
        raise


def _compare(
    whole: Gradients, parts: Gradients, num_steps: int, least: float
) -> tuple[Difference | None, Difference | None, float]:
    """The worst difference for its tolerance, the first beyond it, and how long cut gradients are beside whole ones.

    Args:
        whole: gradients of whole batches.
        parts: of micro-batches.
        num_steps: that are compared.
        least: relative tolerance at the least.
    """
    worst, first, most, products, squares = None, None, -1.0, 0.0, 0.0
    pairs = [*zip(whole.gradients, parts.gradients, strict=False)][:num_steps]
    for step, (ours, theirs) in enumerate(pairs, start=1):
        for name, gradient in ours.items():
            other = theirs.get(name)
            if other is None:
                first = first or first_difference(step, "gradient", {name: gradient}, {})
                continue
            beyond = _beyond(gradient, other, ours, least)
            beyond = math.inf if math.isnan(beyond) else beyond
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


def _beyond(gradient: Tensor, other: Tensor, all_of_step: Mapping[str, Tensor], least: float) -> float:
    """The difference in units of what is taken for rounding."""
    relative = max(_RELATIVE.get(gradient.dtype, _RELATIVE_OTHERWISE), least)
    total = math.sqrt(sum(float(each.double().square().sum()) for each in all_of_step.values()))
    allowed = relative * max(float(gradient.double().norm()), _OF_THE_WHOLE * total)
    apart = float((gradient.double() - other.double()).norm())
    if is_same(gradient, other):  # NaN included
        return 0.0
    return apart / allowed if allowed else 0.0 if apart == 0 else math.inf
