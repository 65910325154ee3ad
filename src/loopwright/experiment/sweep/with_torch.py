"""Functions for the parts of a sweep that need torch. Each function imports torch when it is called.

The runner of jobs in processes of their own does without these parts, and therefore without torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.sweep.launchers import Launcher
from loopwright.experiment.sweep.read_sweep import Sweep
from loopwright.experiment.sweep.store import SweepStore

if TYPE_CHECKING:
    from loopwright.experiment.sweep.search.searching import Searching


def make_inline(directory: Path, trust: Trust) -> Launcher:
    """Return the launcher that runs each job in this process. See `Inline`."""
    from loopwright.experiment.sweep.inline import Inline

    return Inline(directory, trust)


def make_searching(store: SweepStore, sweep: Sweep, trust: Trust, num_threads: int) -> Searching:
    """Return the object that proposes the jobs of a search. See `Searching`.

    Raises:
        SettingError: if the search needs a package that is not installed.
    """
    from loopwright.experiment.sweep.search.searching import Searching

    return Searching(store, sweep, trust, num_threads)


def check_search(sweep: Sweep, mode: str) -> None:
    """Check that the package that a search needs is installed.

    Args:
        sweep: settings and factors of the sweep.
        mode: mode of the objective.

    Raises:
        SettingError: if the package is not installed.
    """
    from loopwright.experiment.sweep.search.searching import make_search

    make_search(sweep, mode)


def count_accelerators(kind: str) -> int:
    """Return the number of accelerators of a kind that this process sees. See `loopwright.device.count_devices`."""
    from loopwright.device import count_devices

    return count_devices(kind) or 0
