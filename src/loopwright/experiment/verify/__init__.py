"""`verify`: runs a few steps of a configuration in two ways that should give equal results, and compares them."""

from loopwright.experiment.verify.verify import VERIFIABLE, Verdict, verify, verify_job

__all__ = ["VERIFIABLE", "Verdict", "verify", "verify_job"]
