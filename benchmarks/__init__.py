"""Measurements against plain Dask, side by side. Run with ``python -m benchmarks``."""
