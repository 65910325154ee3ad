"""Sweeps: the jobs of one command line, run one after another, and a table of their results."""
