"""Run many tasks on Dask from a notebook, and know what became of each of them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from scalable_nb import errors
    from scalable_nb.cache.content import Directory, File
    from scalable_nb.cache.decorator import cacheable
    from scalable_nb.client.futures import FutureList, PartialResult, partial
    from scalable_nb.faults.backoff import RetryPolicy
    from scalable_nb.faults.policy import TaskPolicy
    from scalable_nb.resubmission.api import resubmit
    from scalable_nb.session.session import ScalableSession
    from scalable_nb.widgets.progress import progress

#: Public name -> module that defines it. Resolved on first use, so that importing the
#: package costs next to nothing.
_HOMES = {
    "Directory": "scalable_nb.cache.keys",
    "File": "scalable_nb.cache.keys",
    "FutureList": "scalable_nb.client.futures",
    "PartialResult": "scalable_nb.client.futures",
    "RetryPolicy": "scalable_nb.faults.policy",
    "ScalableSession": "scalable_nb.session.session",
    "TaskPolicy": "scalable_nb.faults.policy",
    "cacheable": "scalable_nb.cache.decorator",
    "partial": "scalable_nb.client.futures",
    "progress": "scalable_nb.widgets.progress",
    "resubmit": "scalable_nb.resubmission",
}

__all__ = [
    "Directory",
    "File",
    "FutureList",
    "PartialResult",
    "RetryPolicy",
    "ScalableSession",
    "TaskPolicy",
    "cacheable",
    "errors",
    "partial",
    "progress",
    "resubmit",
]


def __getattr__(name: str) -> Any:
    if name == "errors":
        return importlib.import_module("scalable_nb.errors")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


def load_ipython_extension(ipython: Any) -> None:
    """Register the ``%scalable`` magics: ``%load_ext scalable_nb``."""
    from scalable_nb.magics.extension import load

    load(ipython)


def unload_ipython_extension(ipython: Any) -> None:
    """Remove the magics again: ``%unload_ext scalable_nb``."""
    from scalable_nb.magics.extension import unload

    unload(ipython)
