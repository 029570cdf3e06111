"""`diagnose`, at the path that ``%scalable help`` of earlier versions showed."""

from scalable_nb.diagnosis.diagnose import diagnose

__all__ = ["diagnose"]
