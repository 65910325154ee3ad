"""What all tests begin with: laws without a deadline, a core for each process, and signals that arrive."""

from __future__ import annotations

import os
import signal

from hypothesis import settings

# No deadline for one example, because the cores that tests run on are shared.
settings.register_profile("shared_cores", deadline=None)
settings.load_profile("shared_cores")

# Processes of tests side by side, each with a thread for every core, would wait for one another. Torch reads this once.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Begun in the background of a shell, the tests would ignore Ctrl-C, and so would all that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
