"""Where a session runs: each target makes a Dask cluster of its workers."""
