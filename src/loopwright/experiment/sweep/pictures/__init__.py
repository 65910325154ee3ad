"""Functions that draw the results of a sweep. They import no torch."""
