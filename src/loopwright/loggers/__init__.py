"""Loggers, which print, store or send the metrics, timings and texts of a run."""

from loopwright.loggers.csv_logger import CSVLogger
from loopwright.loggers.default import default_loggers
from loopwright.loggers.json_lines import JSONLinesLogger
from loopwright.loggers.progress import ProgressLogger
from loopwright.loggers.tensor_board import TensorBoardLogger
from loopwright.loggers.wandb_logger import WandbLogger

__all__ = ["CSVLogger", "JSONLinesLogger", "ProgressLogger", "TensorBoardLogger", "WandbLogger", "default_loggers"]
