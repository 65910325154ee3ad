"""Comparisons of runs. This package imports no torch, Hydra or matplotlib."""
