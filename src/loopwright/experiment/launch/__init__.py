"""Functions that start a run in this process, and a supervisor that restarts a run after its process has died."""
