"""One run: carrying out a checked job, recording its end and returning its outcome."""
