"""Canonical bytes and digests of values and functions, from which cache keys are made."""
