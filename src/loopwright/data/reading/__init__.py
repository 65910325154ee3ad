"""Modules that read data sets: sample order, worker processes, and batch sources for any dataloader."""
