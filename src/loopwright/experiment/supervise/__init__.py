"""Restarts of runs whose process died: the supervisor, its decision, and its connection to the supervised process."""
