"""The code that turns a command line into runs and their run directories.

Nothing is re-exported. Importing this package imports neither Hydra nor torch, so that help and error messages are
printed quickly.
"""

from __future__ import annotations

__all__: list[str] = []
