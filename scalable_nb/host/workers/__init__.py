"""The workers of a run: scaling, replacement, retirement, their jobs."""
