"""Composition of configurations with Hydra, conversion of Hydra's errors, and the call of Hydra's main function."""
