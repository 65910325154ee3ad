"""Tests that `Precision` refuses invalid settings."""

from __future__ import annotations

from typing import Any

import pytest

from loopwright import Precision
from loopwright.errors import SettingError


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dtype": "bfloat16"}, "dtype='bfloat16': expected float32"),
        ({"max_gradient_norm": 0}, "max_gradient_norm=0: expected a positive number"),
        ({"max_gradient_norm": float("nan")}, "max_gradient_norm=nan"),
        ({"max_gradient_norm": float("inf")}, "max_gradient_norm=inf"),
        ({"max_gradient_value": "1"}, "max_gradient_value='1'"),
        ({"max_gradient_value": True}, "max_gradient_value=True"),
        ({"max_gradient_value": 1.0, "max_gradient_norm": 1.0}, "expected only one of them; set the other to null"),
    ],
)
def test_invalid_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        Precision(**settings)
