"""A sweep: its index, the processes of its jobs, searches, tables and pictures."""
