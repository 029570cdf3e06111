"""A call as opaque bytes: the function once, the arguments per task.

The client packs, a worker unpacks, the host in between only passes on: it never imports
or unpickles what belongs to the user.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from scalable_nb.telemetry.rows import key_text

#: Longest name of an attempt in the attempt registry, bytes.
REGISTERED_NAME_BYTES: Final = 982

#: From this size on a part of the arguments travels, and is recorded, apart from the rest.
LARGE_BYTES: Final = 1 << 16


@dataclass(slots=True)  # not frozen: a call of a hundred thousand takes a third of the time
class Call:
    """The function and arguments that a task calls; never changed.

    Attributes
    ----------
    function : bytes
        The pickled function; the same object for all tasks of a batch.
    arguments : bytes
        The pickled ``(args, kwargs)``; futures among them are numbers of inputs.
    result_key : str
        Key under which the result is stored, and looked up before the call; empty if it is not.
    buffers : tuple of bytes
        Large arrays and the like among the arguments, apart from the rest; what several calls
        of a batch share is one object.
    about : bytes
        What is stored of the function next to its result, as JSON; empty if results are not
        stored by what was called.
    modules : str
        Digest of the sources of the user's modules that the call may import; empty for none.
    """

    # Dask logs the representation of tasks that fail.
    function: bytes = field(repr=False)
    arguments: bytes = field(repr=False)
    result_key: str = ""
    buffers: tuple[bytes, ...] = field(default=(), repr=False)
    about: bytes = field(default=b"", repr=False)
    modules: str = ""

    def load_function(self) -> Callable[..., Any]:
        """Unpickle the function, for one attempt: what it keeps in itself stays in there."""
        function: Callable[..., Any] = pickle.loads(self.function)
        return function

    def load_arguments(self, inputs: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Unpickle the arguments, with the results of other tasks put in their places."""
        # Copies: a function may change what it was given, and it was given its own.
        buffers = map(bytearray, self.buffers)
        unpickler = _ArgumentsUnpickler(io.BytesIO(self.arguments), buffers=buffers)
        unpickler.inputs = inputs
        args, kwargs = unpickler.load()
        return args, kwargs


def result_key_of(run_spec: Any) -> str:
    """Return the key under which a task's result is stored; empty if it is not.

    Parameters
    ----------
    run_spec : object
        What Dask calls for the task; of ours, one of the arguments is a `Call`.
    """
    calls = (value for value in getattr(run_spec, "args", ()) if isinstance(value, Call))
    return next((call.result_key for call in calls), "")


def module_attribute(module: str, name: str) -> Any:
    """Return a variable of a module, imported if need be."""
    return getattr(importlib.import_module(module), name)


class _ArgumentsUnpickler(pickle.Unpickler):
    inputs: Sequence[Any] = ()

    def persistent_load(self, pid: Any) -> Any:
        return self.inputs[pid]


# --- what a person sees of a call ------------------------------------------------


def registered_name(key: Any) -> str:
    """Return the name of a key in the attempt registry: a digest if it is long or no text."""
    text = key_text(key)
    encoded = text.encode(errors="backslashreplace")
    if len(encoded) <= REGISTERED_NAME_BYTES and len(encoded.decode()) == len(text):
        return text
    return f"sha256:{hashlib.sha256(encoded).hexdigest()}"
