"""`verify`: carries out two short runs of one configuration, and checks that the results of the runs are equal."""

from loopwright.experiment.verify.verify import VERIFIABLE, Verdict, verify, verify_job

__all__ = ["VERIFIABLE", "Verdict", "verify", "verify_job"]
