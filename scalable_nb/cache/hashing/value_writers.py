"""How each kind of plain value is written: a tag, a length where it needs one, the content."""

from __future__ import annotations

import copyreg
import functools
import inspect
import pickle
import struct
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePath
from typing import Any, Final, Protocol

from scalable_nb.cache.content import Directory, File

# Elements that are brought into C order at a time: 8 MB of doubles instead of a whole copy.
_CHUNK_ELEMENTS: Final = 1 << 20


class NotEncodableError(TypeError):
    """A value without canonical bytes; the message says which part, and why."""


class ValueSink(Protocol):
    """Where a writer puts the parts of a value: an `encoder.Encoder`.

    Attributes
    ----------
    feed : callable
        Adds raw bytes.
    """

    feed: Callable[[Any], None]

    def write(self, value: Any) -> None:
        """Feed a part of a value."""

    def write_code(self, code: Any) -> None:
        """Feed a function or class."""

    def write_unordered(self, values: Iterable[Any]) -> None:
        """Feed values in an order that does not depend on theirs."""

    def enter(self, container: object) -> bool:
        """Return whether a container is written for the first time."""

    def leave(self, container: object) -> None:
        """Note that a container is complete."""


_pack_double = struct.Struct(">d").pack


def _float(value: float) -> bytes:
    # The sign and payload of a NaN depend on how it came about, so they are left out.
    return b"f" + _pack_double(value) if value == value else b"n"


def _str(value: str) -> bytes:
    data = value.encode("utf-8", "surrogatepass")
    return b"s%d:" % len(data) + data


#: Type -> bytes of a value of exactly this type.
SCALARS: Final[Mapping[type, Callable[[Any], bytes]]] = {
    type(None): lambda value: b"N",
    bool: lambda value: b"T" if value else b"F",
    int: lambda value: b"i%x;" % value,  # hexadecimal: decimal digits are limited, and slow
    float: _float,
    complex: lambda value: b"j" + _float(value.real) + _float(value.imag),
    str: _str,
    bytes: lambda value: b"b%d:" % len(value) + value,
}


def _write_sequence(tag: bytes) -> Callable[[ValueSink, Any], None]:
    def write(encoder: ValueSink, value: Any) -> None:
        if encoder.enter(value):
            encoder.feed(b"%s%d:" % (tag, len(value)))
            write_each(encoder, value)
            encoder.leave(value)

    return write


def write_each(encoder: ValueSink, values: Iterable[Any]) -> None:
    """Feed values one after the other."""
    feed, write = encoder.feed, encoder.write
    for value in values:
        scalar = SCALARS.get(type(value))
        if scalar is not None:
            feed(scalar(value))
        else:
            write(value)


def _write_dict(encoder: ValueSink, value: Mapping[Any, Any]) -> None:
    if encoder.enter(value):
        encoder.feed(b"{%d:" % len(value))
        for item in value.items():
            write_each(encoder, item)
        encoder.leave(value)


def _write_set(tag: bytes) -> Callable[[ValueSink, Any], None]:
    def write(encoder: ValueSink, value: Any) -> None:
        encoder.feed(tag)
        encoder.write_unordered(value)

    return write


def _write_bytearray(encoder: ValueSink, value: bytearray) -> None:
    encoder.feed(b"B%d:" % len(value))
    encoder.feed(value)


def _write_buffer(encoder: ValueSink, value: pickle.PickleBuffer) -> None:
    raw = value.raw()
    encoder.feed(b"P%d:" % raw.nbytes)
    encoder.feed(raw)


def _write_module(encoder: ValueSink, value: types.ModuleType) -> None:
    encoder.feed(b"M" + _str(value.__name__))


def _write_content(encoder: ValueSink, value: File | Directory) -> None:
    encoder.feed(b"C" + _str(type(value).__name__) + value.content_digest())


def _write_function(encoder: ValueSink, value: types.FunctionType) -> None:
    encoder.write_code(value)


#: Type -> writer of values of exactly this type.
WRITERS: Final[Mapping[type, Callable[[ValueSink, Any], None]]] = {
    tuple: _write_sequence(b"("),
    list: _write_sequence(b"["),
    dict: _write_dict,
    types.MappingProxyType: _write_dict,
    set: _write_set(b"u"),
    frozenset: _write_set(b"U"),
    bytearray: _write_bytearray,
    pickle.PickleBuffer: _write_buffer,
    types.ModuleType: _write_module,
    types.FunctionType: _write_function,
    File: _write_content,
    Directory: _write_content,
}


def write_path(encoder: ValueSink, value: PurePath) -> None:
    """Feed a path as what it is called; `File` stands for what it holds."""
    encoder.feed(b"p")
    encoder.write(type(value))
    encoder.write(str(value))


def write_object(encoder: ValueSink, value: Any) -> None:
    """Feed any other object as what pickle would store of it."""
    if not encoder.enter(value):
        return
    # Statically: a bound method shows its function's attributes, and some proxies anything.
    wrapped = inspect.getattr_static(value, "__wrapped__", None)
    if isinstance(wrapped, types.FunctionType):
        # A wrapper around the user's function (`functools.cache`, `cacheable`, a compiler's)
        # pickles as a mere name.
        encoder.feed(b"w")
        encoder.write(type(value))
        encoder.write(wrapped)
    else:
        _write_reduced(encoder, value, _reduce(value))
    encoder.leave(value)


def _reduce(value: Any) -> Any:
    kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    if kind.startswith("distributed."):
        # A future, an actor, a client: its name on a cluster says nothing of a value.
        raise NotEncodableError(f"a {kind} stands for something on a cluster")
    try:
        reducer = copyreg.dispatch_table.get(type(value))
        return reducer(value) if reducer is not None else value.__reduce_ex__(5)
    except RecursionError:
        raise
    except Exception as error:
        raise NotEncodableError(f"a {kind} has no value to key on ({error})") from error


def _write_reduced(encoder: ValueSink, value: Any, reduced: Any) -> None:
    if isinstance(reduced, str):  # a global: the name says all
        encoder.feed(b"g")
        write_each(encoder, (type(value), str(getattr(value, "__module__", "")), reduced))
        return
    rebuild, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
    encoder.feed(b"o")
    encoder.write(rebuild)
    encoder.write(tuple(arguments))
    _write_state(encoder, type(value), state)
    for tag, parts in ((b"l", items), (b"d", pairs)):
        if parts is not None:
            listed = list(parts)
            encoder.feed(b"%s%d:" % (tag, len(listed)))
            write_each(encoder, listed)


def _write_state(encoder: ValueSink, kind: type, state: Any) -> None:
    """Feed an object's attributes, sorted by name: in which order they were set is chance."""
    if isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], dict):
        encoder.feed(b"2")  # (the dict, the slots)
        _write_state(encoder, kind, state[0])
        _write_state(encoder, kind, state[1])
    elif type(state) is dict and all(type(name) is str for name in state):
        # A property that was computed and remembered says nothing new.
        names = [name for name in sorted(state) if not _is_cached_property(kind, name)]
        encoder.feed(b"a%d:" % len(names))
        for name in names:
            encoder.feed(_str(name))
            encoder.write(state[name])
    else:
        encoder.feed(b"v")
        encoder.write(state)


def _is_cached_property(kind: type, name: str) -> bool:
    return isinstance(getattr(kind, name, None), functools.cached_property)


def array_writer(kind: type) -> Callable[[ValueSink, Any], None] | None:
    """The writer for values of exactly this type, None where it is not of numpy or pandas.

    Subclasses defined elsewhere are written as what pickle would store of them.
    """
    # As text, since some C types answer with something else.
    package = str(kind.__module__).partition(".")[0]
    if package == "numpy":
        numpy = sys.modules["numpy"]
        if kind is numpy.ndarray or kind is numpy.memmap:
            return _write_array
        if issubclass(kind, numpy.generic):
            return _write_numpy_scalar
    elif package == "pandas":
        pandas = sys.modules["pandas"]
        if kind is pandas.DataFrame:
            return _write_frame
        if kind is pandas.Series:
            return _write_series
        if issubclass(kind, pandas.api.extensions.ExtensionArray):
            return _write_extension_array
    return None


def _write_numpy_scalar(encoder: ValueSink, value: Any) -> None:
    # As an array without dimensions, but no array.
    encoder.feed(b"y")
    _write_array(encoder, sys.modules["numpy"].asarray(value))


def _write_array(encoder: ValueSink, value: Any) -> None:
    """Feed dtype, shape and the elements in C order, however they lie in memory."""
    encoder.feed(b"Y")
    write_each(encoder, (value.dtype.str, repr(value.dtype), value.shape))
    _write_elements(encoder, value)


def _write_elements(encoder: ValueSink, value: Any) -> None:
    if value.dtype.names is not None:
        # Field by field: the bytes between the fields are whatever was there before.
        for name in value.dtype.names:
            _write_array(encoder, value[name])
    elif value.dtype.hasobject or value.dtype.kind == "T":
        _write_objects(encoder, value)
    elif not value.nbytes:
        return
    elif value.flags.c_contiguous:
        encoder.feed(value.reshape(-1).view("u1"))
    else:
        numpy = sys.modules["numpy"]
        flags = ["external_loop", "buffered"]
        for chunk in numpy.nditer(value, flags=flags, order="C", buffersize=_CHUNK_ELEMENTS):
            encoder.feed(numpy.ascontiguousarray(chunk).view("u1"))


def _write_objects(encoder: ValueSink, value: Any) -> None:
    if not encoder.enter(value):
        return
    elements = value.reshape(-1).tolist()
    if all(type(element) is str for element in elements):
        # A column of texts, written in two pieces instead of one per element.
        texts = [element.encode("utf-8", "surrogatepass") for element in elements]
        encoder.feed(b"t" + ",".join(map(str, map(len, texts))).encode() + b";")
        encoder.feed(b"".join(texts))
    else:
        encoder.feed(b"e%d:" % len(elements))
        write_each(encoder, elements)
    encoder.leave(value)


def _write_frame(encoder: ValueSink, value: Any) -> None:
    """Feed a frame column by column: how pandas groups them in blocks is its own affair."""
    if encoder.enter(value):
        encoder.feed(b"DF%d:" % value.shape[1])
        write_each(encoder, (value.attrs, value.flags.allows_duplicate_labels))
        write_each(encoder, (value.index, value.columns))
        for position in range(value.shape[1]):
            _write_column(encoder, value.iloc[:, position])
        encoder.leave(value)


def _write_series(encoder: ValueSink, value: Any) -> None:
    if encoder.enter(value):
        encoder.feed(b"SE")
        write_each(encoder, (value.attrs, value.flags.allows_duplicate_labels))
        write_each(encoder, (value.name, value.index))
        _write_column(encoder, value)
        encoder.leave(value)


def _write_column(encoder: ValueSink, column: Any) -> None:
    array, pandas = column.array, sys.modules["pandas"]
    # Without pyarrow an array of texts is one of numpy's, too.
    is_native = isinstance(array, pandas.arrays.NumpyExtensionArray) and not isinstance(
        array.dtype, pandas.StringDtype
    )
    encoder.write(array.to_numpy() if is_native else array)


def _write_extension_array(encoder: ValueSink, value: Any) -> None:
    if isinstance(value.dtype, sys.modules["pandas"].StringDtype):
        # Arrow keeps texts in chunks and slices of larger buffers, which say nothing; nor does
        # whether it is Arrow that keeps them.
        encoder.feed(b"ST")
        encoder.write(repr(value.dtype.na_value))
        encoder.write(value.to_numpy(dtype=object))
    else:
        write_object(encoder, value)
