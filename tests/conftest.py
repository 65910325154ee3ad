"""Settings of all laws: no deadline for one example, because the cores that tests run on are shared."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("shared_cores", deadline=None)
settings.load_profile("shared_cores")
