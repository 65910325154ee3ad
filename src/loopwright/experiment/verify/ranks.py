"""`verify_ranks`: checks that training in several processes changes gradients and metrics only by rounding.

As in `verify_accumulation`, every step is compared separately: the processes update their weights with the gradients of
the run in one process. Without this, an optimizer such as Adam could amplify rounding errors.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from loopwright.device import Device
from loopwright.errors import PeerError, SettingError
from loopwright.experiment.launch.agent import describe_end, start_processes
from loopwright.experiment.runs.causes import read_end
from loopwright.experiment.verify.accumulation import compare_gradients, half_tolerance
from loopwright.experiment.verify.both_ways import validating
from loopwright.experiment.verify.dropout import WithoutDropout
from loopwright.experiment.verify.equality import Difference, first_difference, is_same, sizes
from loopwright.experiment.verify.explain import Evidence, explain_ranks, is_own_dataloader, is_sum
from loopwright.experiment.verify.found import Found, count
from loopwright.experiment.verify.rank_trace import RankTrace, read_trace, write_gradients
from loopwright.experiment.verify.samples import columns, of_uncut
from loopwright.experiment.verify.trials import Trials

# Tolerances of metrics and of final weights, relative to the values in one process.
_RELATIVE = {torch.float64: 1e-10}
_RELATIVE_OTHERWISE = 1e-5
_ABSOLUTE_METRICS = 1e-2  # values below this are compared with the tolerance of this value


def start_ranks(trials: Trials, folder: Path) -> None:
    """Start the processes, each of which writes its trace to ``folder``, and wait for them.

    Raises:
        SettingError: if a setting is wrong in a process.
        PeerError: for any other error in a process.
        KeyboardInterrupt, SystemExit: if this process received a signal meanwhile.
    """
    assert isinstance(trials.job.device, Device), "settle() builds the device settings"
    failures, received = start_processes(folder, trials.words_of("ranks"), trials.job.device, is_quiet=True)
    if read_end(folder) == 0 and not failures and received is None:
        return
    code, line = describe_end(folder, failures, received)
    if received is not None:
        raise KeyboardInterrupt if code == 130 else SystemExit(code)
    raise SettingError(line, "") if code == 2 else PeerError(line)


def verify_ranks(trials: Trials) -> Found:
    """Verify that ``device.num_processes`` processes train like one process, up to rounding."""
    assert isinstance(trials.job.device, Device), "settle() builds the device settings"
    num_processes = trials.job.device.num_processes
    alone, mode = RankTrace(trials.num_steps), WithoutDropout()
    with mode:
        trial = trials.run(validating(trials), alone)
    if not alone.gradients:
        raise SettingError("optimizer", ": received no gradient; expected at least one step to compare.")
    with tempfile.TemporaryDirectory() as folder:
        write_gradients(Path(folder), alone)
        start_ranks(trials, Path(folder))
        traces = [read_trace(Path(folder), rank) for rank in range(num_processes)]
    least = half_tolerance(mode.half_types)
    num_steps = len(alone.gradients)
    is_divided = not is_own_dataloader(trial.dataloader)
    rows, uncut = _compare_rows(alone, traces, is_divided=is_divided)
    worst, wrong, ratio = compare_gradients(alone, traces[0], num_steps, least)
    trained = wrong or _compare_metrics(alone, traces[0], least) or _compare_weights(alone, traces, least)
    did = f"{count(num_steps, 'step')} in 1 process; in {num_processes} processes, which divide each micro-batch"
    remarks = of_uncut(uncut)
    if mode.has_dropped:
        remarks.append("dropout is switched off in both runs, because each process draws other random numbers")
    if mode.half_types:
        remarks.append(f"the model computes partly in 16 bits, so values are compared with a tolerance of {least:.2g}")
    if trained is None and rows is not None and is_divided:
        remarks.append(f"{rows}; the gradients are equal, so this value may not be divided by samples")
    if trained is None and (rows is None or is_divided):
        metrics = count(len(alone.metrics[-1]) if alone.metrics else 0, "metric")
        compared = f"{count(len(alone.gradients[0]), 'gradient')} and {metrics} in each step, the final weights"
        said = f"equal to rounding: {compared}; the largest difference in {worst}"
        return Found(is_equal=True, did=did, said=said, remarks=remarks)
    batch_size = trials.config["data"].get("batch_size")
    has_other_rows = type(batch_size) is int and max(alone.num_rows, default=0) > batch_size and is_divided
    difference = trained if rows is None or has_other_rows else rows
    assert difference is not None, "one of the two differs"
    evidence = Evidence(
        model=trial.model,
        dataloader=trial.dataloader,
        changed_in_forward=alone.changed,
        num_rows=alone.num_rows if has_other_rows else (),
        has_drawn=alone.has_drawn,
        has_batch_statistics=mode.has_batch_statistics,
        is_sum=difference.kind == "gradient" and is_sum(ratio, num_processes),
    )
    explanations = explain_ranks(difference, evidence)
    return Found(is_equal=False, did=did, said=f"not equal: {difference}", explanations=explanations, remarks=remarks)


def _compare_rows(
    alone: RankTrace, traces: Sequence[RankTrace], *, is_divided: bool
) -> tuple[Difference | None, set[str]]:
    """Compare the rows of each micro-batch with the rows that the processes had of it.

    Process r of W processes has the rows r, r + W, r + 2W, and so on.

    Args:
        alone: trace of the run in one process.
        traces: traces of several processes.
        is_divided: whether Loopwright divides the micro-batches. Otherwise, each process may read all rows.

    Returns:
        The first difference, and the names of values that cannot be joined, which are not compared.
    """
    uncut: set[str] = set()
    for place in sorted(alone.rows):
        batch = columns(alone.rows[place])
        shares = [columns(each.rows[place]) for each in traces if place in each.rows]
        if not is_divided and all(first_difference(place[0], "batch", batch, each) is None for each in shares):
            values = "every process reads all rows, so they are not divided"
            return Difference(step=place[0], kind="batch", name="", absolute=None, relative=None, values=values), uncut
        joined = {name: _interleave(batch.get(name), [each.get(name) for each in shares]) for name in batch}
        uncut |= {name for name, value in joined.items() if value is None}
        compared = [{name: value for name, value in each.items() if name not in uncut} for each in (batch, joined)]
        found = first_difference(place[0], "batch", compared[0], compared[1])
        if found is not None:
            return found, uncut
    return None, uncut


def _interleave(batch: Any, shares: Sequence[Any]) -> Any:
    """Join the values of the processes into the value of the whole micro-batch; None if they cannot be joined."""
    num_shares = len(shares)
    if shares and all(is_same(batch, each) for each in shares):
        return batch
    if shares and all(isinstance(each, list) for each in shares):
        return [shares[index % num_shares][index // num_shares] for index in range(sum(map(len, shares)))]
    tensors = [each for each in shares if isinstance(each, Tensor) and each.ndim]
    if not tensors or len(tensors) < num_shares or len({each.shape[1:] for each in (*tensors, batch)}) > 1:
        return None
    joined = tensors[0].new_empty((sum(map(len, tensors)), *tensors[0].shape[1:]))
    if any(len(joined[rank::num_shares]) != len(each) for rank, each in enumerate(tensors)):
        return torch.cat(tensors)
    for rank, each in enumerate(tensors):
        joined[rank::num_shares] = each
    return joined


def _compare_metrics(alone: RankTrace, together: RankTrace, least: float) -> Difference | None:
    """Return the first metric whose values differ by more than rounding, relative to the value in one process."""
    dtypes = {each.dtype for each in alone.gradients[0].values()}
    tolerance = max(least, *(_RELATIVE.get(each, _RELATIVE_OTHERWISE) for each in dtypes))
    for step, (ours, theirs) in enumerate(zip(alone.metrics, together.metrics, strict=False), start=1):
        for name in {**ours, **theirs}:
            if name not in ours or name not in theirs:
                return first_difference(step, "metrics", {name: ours.get(name)}, {name: theirs.get(name)})
            one, other = ours[name], theirs[name]
            is_close = math.isclose(one, other, rel_tol=tolerance, abs_tol=_ABSOLUTE_METRICS * tolerance)
            if not is_close and not (math.isnan(one) and math.isnan(other)):
                apart = abs(one - other)
                relative = apart / abs(one) if one else math.inf
                return Difference(step=step, kind="metrics", name=name, absolute=apart, relative=relative, values="")
    return None


def _compare_weights(alone: RankTrace, traces: Sequence[RankTrace], least: float) -> Difference | None:
    """Return the first parameter whose final values differ, although all updates were made with equal gradients.

    The limit for the norm of a difference is relative to the norm of the parameter in one process. Clipping by the norm
    of the gradients causes differences by rounding. The weights of all processes must be bitwise equal.
    """
    step, together = len(alone.gradients), traces[0]
    for name, weight in alone.weights.items():
        absolute, relative = sizes(weight, together.weights[name])
        limit = max(least, _RELATIVE.get(weight.dtype, _RELATIVE_OTHERWISE))
        if not is_same(weight, together.weights[name]) and not relative <= limit:
            return Difference(step=step, kind="weights", name=name, absolute=absolute, relative=relative, values="")
    for rank, trace in enumerate(traces):
        if trace.digest != together.digest:
            values = f"of process {rank} are not bitwise equal to the weights of process 0"
            return Difference(step=step, kind="weights", name="", absolute=None, relative=None, values=values)
    return None
