"""Functions that compose configurations with Hydra, convert Hydra's errors, and call Hydra's main function."""
