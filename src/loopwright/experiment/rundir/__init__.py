"""The run directory: made for one run, written by it, read again by others."""
