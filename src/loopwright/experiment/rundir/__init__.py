"""The run directory: its creation, its lock, and the files in which a run records itself."""
