"""`explain_miss`, at the path that ``%scalable help`` of earlier versions showed, as `why`."""

from scalable_nb.cache.maintenance import explain_miss as why

__all__ = ["why"]
