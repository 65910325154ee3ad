"""Classes and functions that compute, describe and compare the plan of a fit, before any data is read."""

from loopwright.plan.build import plan_fit
from loopwright.plan.cadence import next_multiple
from loopwright.plan.compare import ADDED_SETTINGS, plan_differences, plan_extensions, setting_change
from loopwright.plan.curve import draw_curve
from loopwright.plan.describe import count_samples, describe, plan_json
from loopwright.plan.epochs import EPOCHS, check_epochs, exact_epochs, read_epochs
from loopwright.plan.lengths import longer_length, longer_setting
from loopwright.plan.metric_mode import settle_mode
from loopwright.plan.metric_names import metric_problem
from loopwright.plan.passes import Window
from loopwright.plan.plan import Plan
from loopwright.plan.save_intervals import check_interval, check_multiple
from loopwright.plan.stages import Downstream, Save, Stage, Train, Validate
from loopwright.plan.training_settings import TrainingSettings
from loopwright.plan.validation import PlannedSet, eval_steps_note, mean_prefix, validation_batches
from loopwright.terminal_text import in_ascii

__all__ = [
    "ADDED_SETTINGS",
    "EPOCHS",
    "Downstream",
    "Plan",
    "PlannedSet",
    "Save",
    "Stage",
    "Train",
    "TrainingSettings",
    "Validate",
    "Window",
    "check_epochs",
    "check_interval",
    "check_multiple",
    "count_samples",
    "describe",
    "draw_curve",
    "eval_steps_note",
    "exact_epochs",
    "in_ascii",
    "longer_length",
    "longer_setting",
    "mean_prefix",
    "metric_problem",
    "next_multiple",
    "plan_differences",
    "plan_extensions",
    "plan_fit",
    "plan_json",
    "read_epochs",
    "setting_change",
    "settle_mode",
    "validation_batches",
]
