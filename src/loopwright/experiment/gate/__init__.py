"""The gate: what a configuration may name, checked before anything is imported; and the one place that instantiates."""
