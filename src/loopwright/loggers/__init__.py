"""Loggers: where the metrics of a run go."""

from loopwright.loggers.json_lines import JSONLinesLogger
from loopwright.loggers.progress import ProgressLogger

__all__ = ["JSONLinesLogger", "ProgressLogger"]
