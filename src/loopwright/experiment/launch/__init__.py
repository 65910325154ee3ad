"""Processes: one run in this process, and a supervisor that starts a run again when it dies."""
