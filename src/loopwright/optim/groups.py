"""`group_parameters`, which chooses the weight decay and learning rate of parameters by name patterns."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor

from loopwright.errors import SettingError, did_you_mean, refuse, refuse_type

_MAX_NAMES_SHOWN = 6


def group_parameters(
    named_parameters: Iterable[tuple[str, Tensor]],
    lr: float,
    weight_decay: float,
    without_decay: Sequence[str] = (),
    rate_factors: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """Put parameters with the same learning rate and weight decay into one group.

    Patterns are shell patterns that must match the whole name: ``*.bias``, ``blocks.[01].*``.

    Args:
        named_parameters: (name, parameter) pairs, such as ``model.named_parameters()``.
        lr: learning rate.
        weight_decay: weight decay of the parameters that no pattern in ``without_decay`` matches.
        without_decay: patterns of the parameters that get no weight decay.
        rate_factors: mapping from a pattern to a factor of ``lr``, 0 or more. If several patterns match a parameter,
            the factor of the first matching pattern applies.

    Returns:
        Groups for a torch optimizer, in the order of their first parameters. Without patterns there is one group.

    Raises:
        SettingError: if a pattern matches no parameter, if a pattern of ``rate_factors`` never applies because of
            earlier patterns, or if a value is outside its range.
    """
    parameters = _check_pairs(named_parameters)
    factors = _check_factors(rate_factors)
    _check_patterns("without_decay", without_decay, parameters)
    _check_patterns("rate_factors", list(factors), parameters)
    _check_each_applies(list(factors), parameters)
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in parameters.items():
        decay = 0.0 if any(fnmatchcase(name, pattern) for pattern in without_decay) else weight_decay
        factor = next((factor for pattern, factor in factors.items() if fnmatchcase(name, pattern)), 1.0)
        group = groups.setdefault((decay, factor), {"params": [], "lr": lr * factor, "weight_decay": decay})
        group["params"].append(parameter)
    return list(groups.values())


def _check_pairs(named_parameters: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    pairs: list[Any] = list(named_parameters)
    for pair in pairs:
        if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str)):
            kind = type(pair).__name__
            raise refuse_type("named_parameters", kind, "(name, parameter) pairs", "give model.named_parameters()")
    return dict(pairs)


def _check_factors(rate_factors: Mapping[str, float] | None) -> dict[str, float]:
    is_by_name = isinstance(rate_factors, Mapping) and all(isinstance(pattern, str) for pattern in rate_factors)
    if rate_factors is not None and not is_by_name:
        raise refuse_type("rate_factors", rate_factors, "a mapping from name patterns to factors, or null")
    factors = dict(rate_factors or {})
    for pattern, factor in factors.items():
        setting = f"rate_factors.{pattern}"
        if isinstance(factor, bool) or not isinstance(factor, int | float):
            raise refuse_type(setting, factor, "a finite number, 0 or more")
        if not 0 <= factor < math.inf:
            raise refuse(setting, factor, "a finite number, 0 or more")
    return factors


def _check_patterns(setting: str, patterns: Sequence[str], names: Iterable[str]) -> None:
    is_list = isinstance(patterns, Sequence) and not isinstance(patterns, str)
    if not is_list or not all(isinstance(pattern, str) for pattern in patterns):
        raise refuse_type(setting, patterns, "a list of name patterns, such as ['*.bias']", "use [] for none")
    known = list(names)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in known):
            shown = ", ".join(known[:_MAX_NAMES_SHOWN]) + (", …" if len(known) > _MAX_NAMES_SHOWN else "")
            hint = did_you_mean(pattern, [*known, *_patterns_of(known)])
            raise SettingError(setting, f"={pattern!r}: matches no parameter. Parameters: {shown}.{hint}")


def _patterns_of(names: Sequence[str]) -> list[str]:
    """Return patterns built from the first and the last component of each name, such as ``layers.*`` and ``*.bias``."""
    firsts = [f"{name.partition('.')[0]}.*" for name in names if "." in name]
    lasts = [f"*.{name.rpartition('.')[2]}" for name in names if "." in name]
    return list(dict.fromkeys([*firsts, *lasts]))


def _check_each_applies(patterns: Sequence[str], names: Iterable[str]) -> None:
    """Raise an error if earlier patterns match all parameters of a pattern, because its factor would be unused."""
    first = {name: next((pattern for pattern in patterns if fnmatchcase(name, pattern)), None) for name in names}
    for pattern in patterns:
        if pattern not in first.values():
            earlier = ", ".join(dict.fromkeys(str(used) for name, used in first.items() if fnmatchcase(name, pattern)))
            problem = (
                f": never applies, because earlier patterns ({earlier}) match all its parameters; move this pattern "
                "above the earlier patterns."
            )
            raise SettingError(f"rate_factors.{pattern}", problem)
