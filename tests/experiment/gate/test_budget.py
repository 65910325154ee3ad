"""`Budget` accepts a number at the limit and refuses one more, in one line with the path."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from loopwright.errors import SettingError
from loopwright.experiment.gate.budget import Budget

LIMITS: dict[str, tuple[Callable[[Budget, str, int], None], int]] = {
    "values": (Budget.spend_values, 10_000),
    "characters": (Budget.spend_text, 1_000_000),
    "bytes": (lambda budget, where, size: budget.spend_text(where, size, "bytes"), 1_000_000),
    "levels": (Budget.check_depth, 100),
    "interpolations that each refer to the next": (Budget.check_chain, 200),
    "combinations": (Budget.check_combinations, 10_000),
}


@pytest.mark.parametrize("unit", LIMITS)
def test_a_limit_is_the_largest_accepted_number(unit: str) -> None:
    spend, limit = LIMITS[unit]
    spend(Budget(), "model", limit)
    with pytest.raises(SettingError, match=rf"^model: expected at most {limit:,} {unit}\b.*\.$"):
        spend(Budget(), "model", limit + 1)


@pytest.mark.parametrize("spend", [Budget.spend_values, Budget.spend_text])
def test_numbers_are_subtracted_from_one_budget(spend: Callable[[Budget, str, int], None]) -> None:
    budget = Budget(num_values=10, num_characters=10)
    spend(budget, "", 6)
    spend(budget, "", 4)
    with pytest.raises(SettingError, match=r"^configuration: expected at most"):
        spend(budget, "", 1)
