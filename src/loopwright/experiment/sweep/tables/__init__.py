"""Functions that print and write the results of a sweep as tables. They import no torch."""
