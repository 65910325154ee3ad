"""The screen that shows a sweep while it runs."""
