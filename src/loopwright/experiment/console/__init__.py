"""The command line as text: reading it, and printing messages, tables and help."""
