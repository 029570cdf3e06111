"""The tasks of a run, as the host follows them."""
