"""Pickle functions and arguments of calls, and describe arguments in one line."""

from __future__ import annotations

import inspect
import io
import itertools
import pickle
import reprlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import Any, Final, NamedTuple

import numpy as np
from dask.utils import funcname
from distributed import Future

from scalable_nb.cache.content import Directory, File
from scalable_nb.client.user_code.code_pickler import (
    CodePickler,
    PickledCode,
    is_picklable,
    pickle_code,
)
from scalable_nb.errors import SubmitError
from scalable_nb.protocol.call import LARGE_BYTES

_PLAIN: Final = frozenset({int, float, bool, str, bytes, complex, type(None)})
_CONTAINERS: Final = (list, tuple, set, frozenset)
_PREVIEW_CHARS: Final = 200
_PREVIEW_BITS: Final = 1000
_SMALL: Final = 1 << 63
_SHORT: Final = reprlib.Repr()
_SHORT.maxstring = 60
_SHORT.maxother = 60


class _ArgumentsPickler(CodePickler):
    """Replaces the futures that are inputs of the task, and no others."""

    def __init__(
        self,
        file: io.BytesIO,
        futures: Sequence[Future[Any]],
        set_apart: Callable[[pickle.PickleBuffer], bool],
    ) -> None:
        super().__init__(file, set_apart)
        self._number_of = {id(future): number for number, future in enumerate(futures)}

    def persistent_id(self, obj: Any) -> int | None:
        return self._number_of.get(id(obj))


def pack_function(function: Callable[..., Any]) -> PickledCode:
    """Pickle a function; the user's modules travel by value.

    Raises
    ------
    SubmitError
        If it cannot be pickled; the message names the value that prevents it.
    """
    try:
        return pickle_code(function)
    except SubmitError:
        raise
    except Exception as error:
        raise SubmitError(
            f"the function {funcname(function)!r} cannot be sent to a worker: {error}. "
            f"{_culprit(function)}Open such things (locks, files, connections) inside the "
            "function instead."
        ) from error


class SharedBuffers:
    """The large buffers of a batch's arguments: one copy of each, however many calls have it."""

    def __init__(self) -> None:
        # The buffer itself is kept too: an address means something only while it lives.
        self._copies: dict[tuple[int, int], tuple[memoryview, bytes]] = {}

    def copy(self, raw: memoryview) -> bytes:
        """Return the content of a buffer, the same object each time."""
        address = np.frombuffer(raw, np.uint8).__array_interface__["data"][0]
        known = self._copies.get((address, raw.nbytes))
        if known is None:
            known = self._copies[address, raw.nbytes] = (raw, bytes(raw))
        return known[1]


class PackedArguments(NamedTuple):
    """Arguments as they travel.

    Attributes
    ----------
    pickled : bytes
    inputs : list of Future
        The futures among them, in order.
    buffers : tuple of bytes
        Their large parts.
    imports : frozenset of str
        Names of the modules that code among them may import.
    """

    pickled: bytes
    inputs: list[Future[Any]]
    buffers: tuple[bytes, ...]
    imports: frozenset[str] = frozenset()


def pack_arguments(
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    function: Callable[..., Any],
    shared: SharedBuffers | None = None,
) -> PackedArguments:
    """Pickle the arguments and collect the futures among them, in order.

    Futures are found where Dask finds them: as arguments and inside lists, tuples, sets
    and dicts.
    """
    values = (tuple(args), dict(kwargs))
    if _are_plain(args, kwargs):
        return PackedArguments(pickle.dumps(values, protocol=pickle.HIGHEST_PROTOCOL), [], ())
    shared = shared or SharedBuffers()
    found: dict[int, Future[Any]] = {}
    _collect_futures(values, found)
    futures = list(found.values())
    buffers: list[bytes] = []

    def set_apart(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        is_small = raw.nbytes < LARGE_BYTES
        if not is_small:
            buffers.append(shared.copy(raw))
        return is_small  # those stay in the pickle

    file = io.BytesIO()
    try:
        pickler = _ArgumentsPickler(file, futures, set_apart)
        pickler.dump(values)
    except Exception as error:
        raise SubmitError(
            f"an argument of {funcname(function)!r} cannot be sent to a worker: {error}. "
            f"{_culprit_argument(values)}Pass what it is made from, and make it inside the "
            "function."
        ) from error
    return PackedArguments(file.getvalue(), futures, tuple(buffers), pickler.imports())


def has_futures(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Return whether a call takes the result of another task."""
    if _are_plain(args, kwargs):
        return False
    found: dict[int, Future[Any]] = {}
    _collect_futures((tuple(args), dict(kwargs)), found)
    return bool(found)


def _are_plain(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    return _PLAIN.issuperset(map(type, args)) and (
        not kwargs or _PLAIN.issuperset(map(type, kwargs.values()))
    )


def _collect_futures(value: Any, found: dict[int, Future[Any]]) -> None:
    if isinstance(value, Future):
        found.setdefault(id(value), value)
    elif isinstance(value, dict):
        for item in value.values():
            _collect_futures(item, found)
    elif isinstance(value, _CONTAINERS):
        for item in value:
            if type(item) not in _PLAIN:
                _collect_futures(item, found)


def _culprit(function: Callable[..., Any]) -> str:
    try:
        scope = inspect.getclosurevars(inspect.unwrap(function))
    except (TypeError, ValueError):
        return ""
    for name, value in {**scope.globals, **scope.nonlocals}.items():
        if not is_picklable(value):
            return f"It uses {name!r}, a {type(value).__name__}, which cannot be pickled. "
    return ""


def _culprit_argument(values: tuple[tuple[Any, ...], dict[str, Any]]) -> str:
    named = [*enumerate(values[0]), *values[1].items()]
    for name, value in named:
        if not isinstance(value, Future) and not is_picklable(value):
            where = f"number {name + 1}" if isinstance(name, int) else repr(name)
            return f"It is argument {where}, a {type(value).__name__}. "
    return ""


class Preview:
    """Writes the arguments of a function's calls in a line, e.g. ``scenario_id=47``.

    Nothing of the user's runs: objects show as their type, so that a slow or failing
    ``__repr__`` cannot hurt, and no large array is formatted.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        try:
            parameters = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):
            self._names: list[str] = []
        else:
            self._names = [
                parameter.name
                for parameter in parameters
                if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.POSITIONAL_ONLY)
            ]

    def __call__(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """Return the arguments of one call as text, at most 200 characters."""
        parts = list(map(_preview_named, self._names, args))
        if len(args) > len(parts):
            parts += map(_preview, args[len(parts) :])
        if kwargs:
            parts += map(_preview_named, kwargs.keys(), kwargs.values())
        text = ", ".join(parts)
        return text if len(text) <= _PREVIEW_CHARS else text[: _PREVIEW_CHARS - 1] + "…"


def _preview_named(name: str, value: Any) -> str:
    return f"{name}={_preview(value)}"


def _preview(value: Any, depth: int = 2) -> str:
    kind = type(value)
    if kind is float or kind is bool or (kind is int and -_SMALL < value < _SMALL):
        return repr(value)  # as below, and sooner: of most calls these are the arguments
    if type(value) is bytes and len(value) > _SHORT.maxother:
        return f"<bytes {len(value)}>"
    if type(value) is int and value.bit_length() > _PREVIEW_BITS:
        return f"<int of {value.bit_length()} bits>"  # Python refuses to write very long ones
    if type(value) in _PLAIN:
        return str(_SHORT.repr(value))
    if isinstance(value, PurePath | File | Directory):
        return str(_SHORT.repr(str(value)))
    if isinstance(value, Future):
        return f"<result of {str(value.key)[:40]}>"
    if type(value) in (list, tuple, set, frozenset) and depth:
        shown = [_preview(item, depth - 1) for item in itertools.islice(value, 4)]
        if len(value) > len(shown):
            shown.append("…")
        opening, closing = "[]" if type(value) is list else "()" if type(value) is tuple else "{}"
        return opening + ", ".join(shown) + closing
    if type(value) is dict and depth:
        items = itertools.islice(value.items(), 4)
        shown = [f"{_preview(key, 0)}: {_preview(item, depth - 1)}" for key, item in items]
        if len(value) > len(shown):
            shown.append("…")
        return "{" + ", ".join(shown) + "}"
    shape = _shape(value)
    if shape:
        return f"<{type(value).__name__} {'x'.join(map(str, shape))}>"
    if shape == () and type(value).__module__ == "numpy" and type(value.item()) in _PLAIN:
        return _preview(value.item())  # a scalar, e.g. one of `numpy.linspace`
    return f"<{type(value).__name__}>"


def _shape(value: Any) -> tuple[int, ...] | None:
    try:
        shape = getattr(value, "shape", None)
    except Exception:  # noqa: BLE001 - a property of the user's may raise anything
        return None
    is_shape = type(shape) is tuple and all(type(length) is int for length in shape)
    return shape if is_shape else None
