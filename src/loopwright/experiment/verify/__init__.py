"""`verify`: a few steps of a configuration carried out in two ways that ought to come to the same."""

from loopwright.experiment.verify.verify import VERIFIABLE, Verdict, verify, verify_job

__all__ = ["VERIFIABLE", "Verdict", "verify", "verify_job"]
