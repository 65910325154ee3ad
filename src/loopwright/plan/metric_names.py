"""`metric_problem`, which checks before a fit whether training or a validation can log a metric with a given name."""

from __future__ import annotations

from loopwright.errors import did_you_mean
from loopwright.plan.plan import Plan
from loopwright.plan.validation import mean_prefix

_ROOT = "val"  # first part of the names of all validation sets


def metric_problem(metric: str, plan: Plan, *, is_of_round: bool, has_own_outputs: bool) -> str | None:
    """Return the reason why no training step and no validation of ``plan`` logs a metric; None if it may be logged.

    This function checks only the prefix of the name, because the keys after the prefix are known only after the first
    batch. A ``val/…`` metric is not checked if the plan has no validation dataloaders or no validation interval.

    Args:
        metric: full name of the metric, such as ``val/loss``.
        plan: plan of the fit.
        is_of_round: whether the metric must be logged in a round of validations. If True, ``train/…`` is refused.
        has_own_outputs: whether the model may return outputs whose names contain a slash.

    Returns:
        The end of an error message, beginning with ``=`` and the name.
    """
    sets, downstream = [each.name for each in plan.val], [name for name, _ in plan.downstream]
    own = tuple(f"{name}/" for name in (*sets, *downstream) if name != _ROOT)
    if metric.startswith(own) or (metric.startswith("train/") and not is_of_round):
        return None
    mean = mean_prefix(sets)
    if not metric.startswith(f"{_ROOT}/"):
        prefixes = [*(() if is_of_round else ("train",)), *([mean] if mean else []), *(sets or [_ROOT]), *downstream]
        *most, last = [f"{prefix}/" for prefix in prefixes]
        shown = f"{', '.join(most)} or {last}" if most else last
        key = metric.rpartition("/")[2].removeprefix("val_")
        hint = f" Did you mean {mean or (sets or [_ROOT])[0]}/{key}?" if key else ""
        return f"={metric!r}: expected a metric whose name begins with {shown}.{hint}"
    name, _, key = metric.removeprefix(f"{_ROOT}/").rpartition("/")
    is_key = not name or (has_own_outputs and mean is None)
    if is_key or not sets or plan.eval_every is None:
        return None
    means = f", and {mean}/{key} is the mean over the sets" if mean else ""
    hint = did_you_mean(metric, [f"{each}/{key}" for each in (*sets, *([mean] if mean else []))])
    return f"={metric!r}: no such validation set. Available: {', '.join(sets)}{means}.{hint}"
