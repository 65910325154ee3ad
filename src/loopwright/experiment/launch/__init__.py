"""Functions that carry out a run in this process, and a supervisor that restarts a run when its process dies."""
