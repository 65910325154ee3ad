"""Functions that check a configuration, import its targets, and build its objects."""
