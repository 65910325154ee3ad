"""Sweeps: the jobs of one command line, run one after another, and their table."""
