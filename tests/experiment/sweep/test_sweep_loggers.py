"""`logged_sweep`: a logger that cannot record a sweep does not end it, and objects of others are not built."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import pytest

from loopwright.experiment.gate.trust import NO_TRUST
from loopwright.experiment.sweep.sweep_loggers import logged_sweep

MLFLOW: dict[str, Any] = {"_target_": "loopwright.loggers.MLFlowLogger"}


def test_an_error_of_a_logger_is_logged_and_the_sweep_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    ran = []
    with caplog.at_level(logging.WARNING, "loopwright"):
        with logged_sweep(tmp_path, {"loggers": {"ml": MLFLOW}}, NO_TRUST, lambda: "done"):
            ran.append(True)
    assert ran
    (record,) = caplog.records
    expected = "loggers.ml: the sweep cannot be recorded: ImportError: loggers: MLFlowLogger needs "
    assert record.getMessage().startswith(expected)


@pytest.mark.parametrize(
    "loggers",
    [None, [], {"a": None}, {"a": {"_target_": "mine.Logger"}}, {"a": {"_target_": "loopwright.loggers.CSVLogger"}}],
)
def test_other_loggers_are_left_alone(tmp_path: Path, loggers: Any) -> None:
    with logged_sweep(tmp_path, {"loggers": loggers}, NO_TRUST, lambda: "done"):
        pass
    assert not [*tmp_path.iterdir()]
