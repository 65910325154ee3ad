"""One run, from a checked job to its outcome."""
