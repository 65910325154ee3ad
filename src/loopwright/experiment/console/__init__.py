"""Functions that read the command line, and print messages, tables and help."""
