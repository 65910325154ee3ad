"""Functions that read a run's metrics and summary, and draw its curves. None of them imports torch."""

from loopwright.records.curves import CURVES_FILE, draw_curves
from loopwright.records.series import (
    COMPLETE,
    MAX_LOG_BYTES,
    METRICS_FILE,
    Series,
    read_mapping,
    read_record,
    read_series,
    read_summary,
)

__all__ = [
    "COMPLETE",
    "CURVES_FILE",
    "MAX_LOG_BYTES",
    "METRICS_FILE",
    "Series",
    "draw_curves",
    "read_mapping",
    "read_record",
    "read_series",
    "read_summary",
]
