"""Functions that read a run's metrics, summary and encoding, and draw its curves. This package imports no torch."""

from loopwright.records.checkpoint_folders import step_folder, steps_in
from loopwright.records.config_file import CONFIG_FILE, config_leaves, read_config
from loopwright.records.curves import CURVES_FILE, draw_curves
from loopwright.records.encoding import DATA_FILE, encoding_text, read_encoding, reads_new_samples
from loopwright.records.environments import ENVIRONMENT_FILE, comparable, read_environment
from loopwright.records.last_values import with_logged
from loopwright.records.run_record import (
    STATES,
    SWEEP_FILE,
    BestValue,
    RunRecord,
    as_number,
    checkpoint_step,
    find_checkpoints,
    find_runs,
    is_run,
    read_num_steps,
    read_run,
    run_id,
)
from loopwright.records.series import (
    COMPLETE,
    MAX_LOG_BYTES,
    METRICS_FILE,
    TIMING_FILE,
    Series,
    read_mapping,
    read_metrics,
    read_record,
    read_series,
    read_summary,
)

__all__ = [
    "COMPLETE",
    "CONFIG_FILE",
    "CURVES_FILE",
    "DATA_FILE",
    "ENVIRONMENT_FILE",
    "MAX_LOG_BYTES",
    "METRICS_FILE",
    "STATES",
    "SWEEP_FILE",
    "TIMING_FILE",
    "BestValue",
    "RunRecord",
    "Series",
    "as_number",
    "checkpoint_step",
    "comparable",
    "config_leaves",
    "draw_curves",
    "encoding_text",
    "find_checkpoints",
    "find_runs",
    "is_run",
    "read_config",
    "read_encoding",
    "read_environment",
    "read_mapping",
    "read_metrics",
    "read_num_steps",
    "read_record",
    "read_run",
    "read_series",
    "read_summary",
    "reads_new_samples",
    "run_id",
    "step_folder",
    "steps_in",
    "with_logged",
]
