"""Callbacks that are shipped with Loopwright."""

from loopwright.callbacks.anomaly import DetectAnomaly
from loopwright.callbacks.compression_baseline import CompressionBaseline
from loopwright.callbacks.data_stall import DataStall
from loopwright.callbacks.early_stopping import EarlyStopping
from loopwright.callbacks.exponential_moving_average import ExponentialMovingAverage
from loopwright.callbacks.gradient_norms import GradientNorms
from loopwright.callbacks.learning_rate import LearningRateMonitor
from loopwright.callbacks.memory import Memory
from loopwright.callbacks.metrics import Metrics
from loopwright.callbacks.noise_scale import NoiseScale
from loopwright.callbacks.overfit import OverfitOneBatch
from loopwright.callbacks.profile import Profile
from loopwright.callbacks.sample_text import SampleText
from loopwright.callbacks.stop_on_non_finite import StopOnNonFinite
from loopwright.callbacks.summary import Summary
from loopwright.callbacks.throughput import Throughput
from loopwright.callbacks.time_limit import TimeLimit
from loopwright.callbacks.utilisation import Utilisation

__all__ = [
    "CompressionBaseline",
    "DataStall",
    "DetectAnomaly",
    "EarlyStopping",
    "ExponentialMovingAverage",
    "GradientNorms",
    "LearningRateMonitor",
    "Memory",
    "Metrics",
    "NoiseScale",
    "OverfitOneBatch",
    "Profile",
    "SampleText",
    "StopOnNonFinite",
    "Summary",
    "Throughput",
    "TimeLimit",
    "Utilisation",
]
