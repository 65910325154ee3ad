"""Modules that carry out the plan of a fit, and run validations. Import each module directly from this package."""
