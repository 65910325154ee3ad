"""`search_text`, which describes the space and the first proposals of a search."""

from __future__ import annotations

from loopwright.experiment.sweep.index import Factor
from loopwright.experiment.sweep.read_sweep import Sweep
from loopwright.experiment.sweep.search.searching import make_search

_MAX_LISTED = 20
_NUM_RANDOM = 10  # of `TpeSearch`: the first proposals do not depend on results


def search_text(sweep: Sweep, mode: str) -> str:
    """Return the space of a search and its first proposals, line by line.

    Args:
        sweep: settings and factors of the sweep.
        mode: "min" or "max": whether a smaller or a larger objective is better.

    Raises:
        SettingError: if the search needs a package that is not installed.
    """
    settings = sweep.settings
    total = settings.num_proposals or 0
    known = min(total, _NUM_RANDOM if settings.search == "tpe" else total)
    num_listed = min(known, _MAX_LISTED)
    proposals = make_search(sweep, mode).propose([], num_listed)
    num_seeds = max(1, len(sweep.swept.seeds))
    seeds = "" if num_seeds == 1 else f" × {num_seeds} seeds"
    width = max(len(factor.key) for factor in sweep.swept.factors)
    lines = [f"Search: {settings.search}, {total} proposals{seeds}"]
    lines += [f"  {factor.key:<{width}}  {_space_text(factor)}" for factor in sweep.swept.factors]
    lines.append("First proposals" if len(proposals) < total else "Proposals")
    for number, values in enumerate(proposals):
        lines.append(f"  {number:>3}  {' '.join(f'{key}={value}' for key, value in values.items())}")
    if len(proposals) < num_listed:
        lines.append("  The space has no further combinations of values.")
    elif len(proposals) < total:
        reason = "follow from the results" if settings.search == "tpe" else "are drawn in the same way"
        lines.append(f"  The other {total - len(proposals)} {reason}.")
    return "\n".join(lines)


def _space_text(factor: Factor) -> str:
    if factor.values is not None:
        return ", ".join(map(str, factor.values))
    kinds = [kind for kind, is_so in (("whole numbers", factor.is_int), ("logarithmic", factor.is_log)) if is_so]
    detail = f" ({', '.join(kinds)})" if kinds else ""
    return f"from {factor.low:g} to {factor.high:g}{detail}"
