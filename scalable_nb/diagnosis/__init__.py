"""Explain the failures of a run from its records: pure functions over tables and rows."""
