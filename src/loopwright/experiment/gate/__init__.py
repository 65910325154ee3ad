"""Functions that check a configuration before they import its targets, and that build the objects it describes."""
