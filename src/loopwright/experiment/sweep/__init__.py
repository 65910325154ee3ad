"""Sweeps: running the jobs of one command line one after another, and writing a table of their results."""
