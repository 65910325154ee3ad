"""`verify_accumulation`: checks that cutting a batch into micro-batches changes the gradients only by rounding.

Every step is compared separately. The second run updates its weights with the gradients of the first run, so that both
runs start each step with equal weights. Otherwise, an optimizer could amplify rounding errors. For example, Adam makes
steps of full size for gradients that are nearly zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
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

# Relative tolerances. The norm of the difference between two gradients of a parameter is divided by the norm of the
# gradient in the first run. The divisor is at least `_OF_THE_WHOLE` times the norm of the gradient of the whole model.
_RELATIVE = {torch.float64: 1e-10}
_RELATIVE_OTHERWISE = 1e-4
_OF_THE_WHOLE = 1e-3
_NUM_ULPS = 4.0  # relative tolerance for a forward in a 16-bit dtype, in units of the machine epsilon


def verify_accumulation(trials: Trials) -> Found:
    """Verify that cutting each batch into micro-batches changes the gradients only by rounding."""
    batch_size, grad_accum_steps = _cut(trials.config)
    size = batch_size * grad_accum_steps
    whole = Gradients(trials.num_steps)
    parts = Gradients(trials.num_steps, whole)
    mode = WithoutDropout()
    # The changed batch size also applies to the validation data. Therefore, validation is planned only for the end of
    # the run.
    loop = {"loop__eval_frequency": None if trials.config["loop"].get("eval_frequency") is None else 1.0}
    with mode:
        trials.run(trials.changed(data__batch_size=size, loop__grad_accum_steps=1, **loop), whole)
        config = trials.changed(data__batch_size=batch_size, loop__grad_accum_steps=grad_accum_steps, **loop)
        with _noting_the_cut(batch_size, grad_accum_steps):
            trial = trials.run(config, parts)
    samples = compare_samples(whole.samples, parts.samples)
    num_steps = samples.num_steps
    least = half_tolerance(mode.half_types)
    worst, first, ratio = compare_gradients(whole, parts, num_steps, least)
    cut = f"{count(grad_accum_steps, 'micro-batch')} of {batch_size}"
    did = f"{count(num_steps, 'step')} on whole batches of {size}; cut into {cut}"
    remarks = [*samples.remarks]
    if mode.has_dropped:
        remarks.append("dropout is switched off in both runs, because it draws new random numbers for each micro-batch")
    if mode.half_types:
        types = " and ".join(sorted(str(each).removeprefix("torch.") for each in mode.half_types))
        remarks.append(
            f"the model computes partly in {types}, so gradients are compared with a tolerance of {least:.2g}"
        )
    # If the micro-batches of the first step differ in their numbers of rows, and a micro-batch has more rows than
    # `batch_size`, the rows are not samples. For example, the data set may join texts of different lengths. Equal
    # numbers of rows are no evidence, because a dataloader may fill each micro-batch up to a fixed number of rows.
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
        remarks.append(f"{samples.difference}; the gradients are equal, so this value may not be cut by samples")
    elif samples.difference is not None and not has_other_rows:
        said, explanations = f"not equal: {samples.difference}", explain("accumulation", samples.difference, evidence)
        return Found(is_equal=False, did=did, said=said, explanations=explanations, remarks=remarks)
    if worst is None:
        raise SettingError("optimizer", ": received no gradient; expected at least one step to compare.")
    if first is None:
        said = f"equal to rounding: {count(len(whole.gradients[0]), 'gradient')} in each step; the largest in {worst}"
        return Found(is_equal=True, did=did, said=said, remarks=remarks)
    explanations = explain("accumulation", first, evidence)
    if is_sum(ratio, grad_accum_steps):
        explanations = [
            f"gradients are 1/{grad_accum_steps} of the whole batch's gradients: the loss may be a sum over samples; "
            "return a mean, with num_items if it is not a mean over the samples",
            *explanations,
        ]
    return Found(is_equal=False, did=did, said=f"not equal: {first}", explanations=explanations, remarks=remarks)


def _cut(config: Mapping[str, Any]) -> tuple[int, int]:
    """Return the number of samples in a micro-batch, and the number of micro-batches in a step.

    If the configuration has one micro-batch per step, the batch is cut into two micro-batches of equal size. The size
    is rounded up, and is at least 2 for a batch of 2 or more samples.
    """
    batch_size, grad_accum_steps = config["data"].get("batch_size"), config["loop"].get("grad_accum_steps", 1)
    if type(batch_size) is not int:
        raise SettingError("data.batch_size", f"={batch_size}: expected a whole number, so that a batch can be cut.")
    if grad_accum_steps > 1:
        return batch_size, grad_accum_steps
    return max(-(-batch_size // 2), min(batch_size, 2)), 2


@contextmanager
def _noting_the_cut(batch_size: int, grad_accum_steps: int) -> Iterator[None]:
    """Add the number and the size of the micro-batches to the messages of errors that are raised in the context."""
    how = f"(verify cut each batch into {count(grad_accum_steps, 'micro-batch')} of {batch_size})"
    try:
        yield
    except SettingError as error:
        raise type(error)(error.setting, f"{error.problem} {how}") from error
    except Exception as error:
        error.add_note(how)
        raise


def half_tolerance(half_types: Iterable[torch.dtype]) -> float:
    """Return the lower limit of the relative tolerance if results of operations have these dtypes; 0 without any."""
    return max((_NUM_ULPS * torch.finfo(each).eps for each in half_types), default=0.0)


def compare_gradients(
    whole: Gradients, parts: Gradients, num_steps: int, least: float
) -> tuple[Difference | None, Difference | None, float]:
    """Compare the gradients of whole batches with the gradients of batches that were cut into parts.

    Args:
        whole: gradients of whole batches.
        parts: gradients of cut batches: of micro-batches, or of the rows of several processes.
        num_steps: number of steps to compare.
        least: lower limit of the relative tolerance.

    Returns:
        The difference that is largest relative to its tolerance, the first difference above its tolerance, and a ratio.
        The ratio is the scalar product of the two gradients, divided by the squared norm of the gradient of whole
        batches. The ratio is 1 for equal gradients, and 1/n if the loss is a sum and there are n micro-batches per
        step.
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
    """Return the norm of the difference between two gradients, divided by the largest allowed norm."""
    relative = max(_RELATIVE.get(gradient.dtype, _RELATIVE_OTHERWISE), least)
    total = math.sqrt(sum(float(each.double().square().sum()) for each in all_of_step.values()))
    allowed = relative * max(float(gradient.double().norm()), _OF_THE_WHOLE * total)
    apart = float((gradient.double() - other.double()).norm())
    if is_same(gradient, other):  # NaN is equal to NaN
        return 0.0
    return apart / allowed if allowed else 0.0 if apart == 0 else math.inf
