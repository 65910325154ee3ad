"""Functions that read a run's metrics and summary, and draw its curves. None of them imports torch."""

from loopwright.records.bounded import MAX_LOG_BYTES, is_sparse, read_at_most, read_record
from loopwright.records.curves import CURVES_FILE, draw_curves
from loopwright.records.series import METRICS_FILE, Series, read_mapping, read_series, read_summary

__all__ = [
    "CURVES_FILE",
    "MAX_LOG_BYTES",
    "METRICS_FILE",
    "Series",
    "draw_curves",
    "is_sparse",
    "read_at_most",
    "read_mapping",
    "read_record",
    "read_series",
    "read_summary",
]
