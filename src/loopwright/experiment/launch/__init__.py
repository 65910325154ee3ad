"""Launching: one run in this process, and a supervisor that restarts a run when its process dies."""
