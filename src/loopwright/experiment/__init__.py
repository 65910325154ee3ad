"""Experiments: from the command line to run directories.

Nothing is re-exported: importing this package imports neither Hydra nor torch, so that help and
error messages are printed quickly.
"""

from __future__ import annotations

__all__: list[str] = []
