"""Functions that format the cells and headings of the table of a sweep."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from loopwright.errors import printable
from loopwright.experiment.sweep.index import JobEntry

_MINUS = "−"
_NEGLIGIBLE = 1e-9  # a mean with a smaller relative deviation has four significant digits
_EXPONENTS = range(-4, 7)  # numbers with other decimal exponents are written with an exponent


def number_text(value: float, *, has_sign: bool = False) -> str:
    """Format a number with four significant digits. A number that is not finite becomes "–".

    Args:
        value: number.
        has_sign: whether a positive number begins with "+".
    """
    return _signed(f"{value:.4g}", has_sign) if math.isfinite(value) else "–"


def measured_text(mean: float, deviation: float | None, *, has_sign: bool = False) -> str:
    """Format a mean and its standard deviation, such as ``0.0728 ± 0.0021``.

    The deviation has two significant digits if they are at most 35, otherwise one, as in tables of the Particle Data
    Group. The mean has as many decimals as the deviation. Very small and very large numbers have a common exponent,
    such as ``(1.2 ± 0.3)e-07``.

    Args:
        mean: mean of the values.
        deviation: standard deviation; None if it is unknown. The result is then only the mean.
        has_sign: whether a positive mean begins with "+".
    """
    if deviation is None or not math.isfinite(mean) or not math.isfinite(deviation):
        return number_text(mean, has_sign=has_sign)
    if deviation <= _NEGLIGIBLE * abs(mean):
        return f"{number_text(mean, has_sign=has_sign)} ± {deviation:.1g}"
    exponent = _exponent(max(abs(mean), deviation))
    exponent = 0 if exponent in _EXPONENTS else exponent
    mean, deviation = _scaled(mean, exponent), _scaled(deviation, exponent)
    decimals = _decimals(deviation)
    text = f"{_signed(f'{mean:.{decimals}f}', has_sign)} ± {deviation:.{decimals}f}"
    return f"({text})e{exponent:+03}" if exponent else text


def with_equal_decimals(numbers: Sequence[str]) -> list[str]:
    """Append zeros to the numbers of a column, up to the most decimals in it or to four significant digits.

    >>> with_equal_decimals(["0.98", "0.9785", "12.3", "", "1e-05"])
    ['0.9800', '0.9785', '12.30', '', '1e-05']
    """
    most = max((len(text.partition(".")[2]) for text in numbers if "e" not in text), default=0)
    return [text if "e" in text or not text[-1:].isdigit() else _with_zeros(text, most) for text in numbers]


def _with_zeros(text: str, most: int) -> str:
    whole, _, decimals = text.partition(".")
    num_significant = len((whole + decimals).lstrip(f"+{_MINUS}0"))
    num_zeros = min(most - len(decimals), 4 - num_significant)
    return f"{whole}.{decimals}{'0' * num_zeros}" if num_zeros > 0 else text


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def headings(keys: Sequence[str]) -> dict[str, str]:
    """Return a short name for each key: its last part, or as many of its last parts as make the name unique.

    >>> headings(["model.dropout", "encoder.dropout", "optimizer.lr"])
    {'model.dropout': 'model.dropout', 'encoder.dropout': 'encoder.dropout', 'optimizer.lr': 'lr'}
    """
    parts = {key: key.split(".") for key in keys}
    num_parts = dict.fromkeys(keys, 1)
    while True:
        names = {key: ".".join(parts[key][-num_parts[key] :]) for key in keys}
        counts = Counter(names.values())
        unclear = [key for key in keys if counts[names[key]] > 1 and num_parts[key] < len(parts[key])]
        if not unclear:
            return names
        for key in unclear:
            num_parts[key] += 1


def value_text(value: Any) -> str:
    """Return the value of a factor on one line, without any abbreviation."""
    if isinstance(value, str):
        return printable(value, keeps_newlines=False) if value.strip() else repr(value)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def job_numbers_text(jobs: Sequence[JobEntry]) -> str:
    """Return the numbers of jobs. Failed jobs have a mark. Four or more successive numbers are written as a range."""
    words: list[str] = []
    run: list[int] = []
    for job in jobs:
        if job.state == "failed" or (run and job.number != run[-1] + 1):
            words += _range(run)
            run = []
        if job.state == "failed":
            words.append(f"{job.number}✗")
        else:
            run.append(job.number)
    return " ".join([*words, *_range(run)])


def _range(run: Sequence[int]) -> list[str]:
    return [f"{run[0]}-{run[-1]}"] if len(run) > 3 else [str(number) for number in run]


def _decimals(deviation: float) -> int:
    """Return the number of decimals with which a deviation has two significant digits up to 35, otherwise one."""
    exponent = _exponent(deviation)
    has_two_digits = _scaled(deviation, exponent) < 3.55
    return max(0, int(has_two_digits) - exponent)


def _exponent(value: float) -> int:
    """Return the decimal exponent of a positive number."""
    return int(f"{value:e}".partition("e")[2])


def _scaled(value: float, exponent: int) -> float:
    """Return ``value`` divided by a power of 10, which may itself be too small or too large for a float."""
    return float(Decimal(value).scaleb(-exponent))


def _signed(text: str, has_sign: bool) -> str:
    """Replace the sign of a number by a minus sign, and remove it from zero."""
    digits = text.lstrip("-")
    if float(digits) == 0.0:
        return digits
    return f"{_MINUS}{digits}" if text.startswith("-") else f"+{digits}" if has_sign else digits
