"""Runs that die are started again: the supervisor, what it decides by, and the process that it watches."""
