"""Exceptions on their way from a worker to the client."""

from __future__ import annotations

import pickle
from typing import Final

from distributed.protocol import pickle as dask_pickle

from scalable_nb.errors import RemoteError
from scalable_nb.faults.tracebacks import format_traceback, safe_message

_MAX_BYTES: Final = 1_000_000


def transportable(error: BaseException) -> Exception:
    """Return the exception if it survives pickling, else without its chain, else a substitute.

    `SystemExit` and the like are always substituted: they would end the process that receives
    them.
    """
    if not isinstance(error, Exception):
        return substitute_for(error)
    if _survives(error):
        return error
    substitute = substitute_for(error)
    bare = error.with_traceback(None)
    bare.__cause__ = bare.__context__ = None  # mostly what cannot be pickled
    return bare if _survives(bare) else substitute


def substitute_for(error: BaseException) -> RemoteError:
    """Return an error with the texts of one that cannot be pickled."""
    name = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
    return RemoteError(name, safe_message(error), format_traceback(error))


def pickle_exception(error: Exception) -> bytes:
    """Return the exception as the host may have to deliver it."""
    data: bytes = dask_pickle.dumps(error)
    return data


def _survives(error: Exception) -> bool:
    try:
        data = dask_pickle.dumps(error)
        if len(data) > _MAX_BYTES:
            return False
        copy = pickle.loads(data)
        # Dask and whoever reads it will ask for both, on the worker and at home.
        return all((str(e), repr(e)) for e in (error, copy)) and _is_alike(copy, error)
    except Exception:  # noqa: BLE001 - pickling runs the user's code, which may raise anything
        return False


def _is_alike(copy: object, error: Exception) -> bool:
    return type(copy).__qualname__ == type(error).__qualname__
