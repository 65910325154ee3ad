"""Composition of configurations with Hydra, its errors, and the call of Hydra's main function."""
