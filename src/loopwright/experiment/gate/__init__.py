"""The gate: checks the names in a configuration before anything is imported, then builds its objects."""
