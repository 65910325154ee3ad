"""`verify`: runs a few steps of a configuration in two ways, and checks that the two runs give equal results."""

from loopwright.experiment.verify.verify import VERIFIABLE, Verdict, verify, verify_job

__all__ = ["VERIFIABLE", "Verdict", "verify", "verify_job"]
