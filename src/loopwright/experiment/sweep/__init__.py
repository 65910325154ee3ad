"""Functions that run the jobs of a sweep one after another, and report the results."""
