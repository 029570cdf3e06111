"""All use of Dask's private interfaces."""
