"""Reading the command line, and printing messages, tables and help."""
