"""Functions that check a configuration before importing the names in it, and build the objects that it describes."""
