"""The run directory: created for one run, written by this run, and read by later commands."""
