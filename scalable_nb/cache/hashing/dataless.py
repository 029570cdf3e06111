"""Types whose objects hold no data that a result could depend on: only the type counts.

The list is closed. `cacheable` extends it for one function with ``opaque=[Type]``.
"""

from __future__ import annotations

import _thread
import abc
import logging
import sys
import threading
from typing import Any, Final

#: Exactly these types: one that is derived from them may add data.
DATALESS_TYPES: Final[frozenset[type]] = frozenset(
    {
        _thread.LockType,
        type(threading.RLock()),
        logging.Logger,
        logging.RootLogger,
        # The registry behind an abstract class: weak references and a counter.
        type(vars(abc.ABC)["_abc_impl"]),
    }
)

_STANDARD_STREAMS: Final = ("stdin", "stdout", "stderr", "__stdin__", "__stdout__", "__stderr__")


def is_dataless(value: Any) -> bool:
    """Return whether an object is of such a type, or a standard stream of this process."""
    return type(value) in DATALESS_TYPES or any(
        value is getattr(sys, name, None) for name in _STANDARD_STREAMS
    )
