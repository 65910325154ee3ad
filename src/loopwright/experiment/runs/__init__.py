"""Functions that carry out a checked job as one run, record the end of the run, and return its outcome."""
