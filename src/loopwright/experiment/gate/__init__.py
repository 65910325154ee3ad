"""Checks of the names in a configuration before they are imported, and the construction of its objects."""
