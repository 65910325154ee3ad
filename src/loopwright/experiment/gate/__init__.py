"""Checks of configurations before a name in them is imported, and construction of the objects they describe."""
