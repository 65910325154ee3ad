"""Functions and classes that create a run directory, lock it, and write the files that describe the run."""
