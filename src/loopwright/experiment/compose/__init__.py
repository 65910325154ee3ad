"""Hydra: where configurations are found, composed, and handed over to be run."""
