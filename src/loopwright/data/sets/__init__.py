"""Data sets: what is read, and the functions that configurations name to make them."""
