"""Experiments: from the command line to run directories.

Nothing is re-exported: importing this package imports neither Hydra nor torch, so that help and mistakes come at once.
"""

from __future__ import annotations

__all__: list[str] = []
