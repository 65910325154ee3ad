"""Searches, which propose the jobs of a sweep, and pruners, which stop jobs early."""
