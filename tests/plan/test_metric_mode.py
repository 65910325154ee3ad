"""Which value of a metric is the best: as given, or from the name of the metric."""

from __future__ import annotations

from typing import Any

import pytest

from loopwright import Checkpointing
from loopwright.callbacks import EarlyStopping
from loopwright.errors import SettingError
from loopwright.plan import settle_mode


@pytest.mark.parametrize(
    "metric",
    ["val/loss", "val/a/loss", "loss", "val/perplexity", "val/bits_per_byte", "val/mean_absolute_error", "val/top_loss",
     "val/mean_squared_error", "val/word_error", None],
)  # fmt: skip
def test_a_smaller_loss_or_error_is_better_without_asking(metric: str | None) -> None:
    assert settle_mode(None, metric) == "min"
    assert settle_mode("max", metric) == "max"


@pytest.mark.parametrize("metric", ["val/accuracy", "val/losses", "val/error", "val/loss/accuracy", "val/f1", "x"])
def test_the_mode_of_any_other_metric_is_asked_for(metric: str) -> None:
    """Catches the worst accuracy that is kept as the best."""
    with pytest.raises(SettingError, match=rf"^mode: expected max or min, as {metric} may .*; use mode=max or"):
        settle_mode(None, metric)
    makes: tuple[Any, ...] = (EarlyStopping, Checkpointing)
    for make in makes:
        with pytest.raises(SettingError, match=r"^mode: expected max or min"):
            make(monitor=metric)
        assert make(monitor=metric, mode="max")
    assert Checkpointing(monitor=metric, mode="max").mode == "max" and Checkpointing().mode == "min"


def test_a_name_that_is_nearly_a_loss_is_corrected() -> None:
    with pytest.raises(SettingError, match=r"mode=min\. Did you mean val/loss\?$"):
        settle_mode(None, "val/los")
    with pytest.raises(SettingError, match=r"mode=min\.$"):
        settle_mode(None, "val/accuracy")


@pytest.mark.parametrize(("mode", "hint"), [("mx", " Did you mean max?"), (1, ""), ("", "")])
def test_another_word_is_refused(mode: object, hint: str) -> None:
    with pytest.raises(SettingError, match=rf"^x.mode={mode!r}: expected min or max[.;]{hint}"):
        settle_mode(mode, "val/loss", "x.mode")
