"""Functions and classes that create run directories and write the files that describe a run."""
