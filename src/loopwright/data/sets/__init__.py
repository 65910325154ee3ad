"""Data set classes, and the functions with which configurations create data sets."""
