"""How each kind of plain value is written: a tag, a length where it needs one, the content."""

from __future__ import annotations

import contextvars
import copyreg
import functools
import inspect
import pickle
import struct
import sys
import threading
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePath
from typing import Any, Final, Protocol

from scalable_nb.cache.content import Directory, File
from scalable_nb.cache.hashing.distributions import distribution_of
from scalable_nb.cache.hashing.user_modules import is_at, is_user_code, is_user_module_name

# Elements that are brought into C order at a time: 8 MB of doubles instead of a whole copy.
_CHUNK_ELEMENTS: Final = 1 << 20


class NotEncodableError(TypeError):
    """A value without canonical bytes.

    Parameters
    ----------
    reason : str
        Which object it is, or what is wrong with it.
    path : str
        Where the object is, as ``model.CONFIG["engine"]``.
    """

    def __init__(self, reason: str, path: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.path = path

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}" if self.path else self.reason

    def __reduce__(self) -> Any:
        return type(self), (self.reason, self.path)

    def prepend(self, place: str) -> None:
        """Note that the object is inside another one."""
        self.path = place + self.path


class TransparentWrapper:
    """Base of objects that stand for a function."""

    __slots__ = ()

    def key_parts(self) -> tuple[Any, ...]:
        """Return the function, and what else decides about a result."""
        raise NotImplementedError


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
        """Feed a function, class, module or code object."""

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
            try:
                write(value)
            except NotEncodableError as error:
                if isinstance(values, list | tuple):
                    position = next(n for n, each in enumerate(values) if each is value)
                    error.prepend(f"[{position}]")
                raise


def _write_items(encoder: ValueSink, items: Iterable[tuple[Any, Any]]) -> None:
    write = encoder.write
    for key, value in items:
        try:
            write(key)
            write(value)
        except NotEncodableError as error:
            shown = repr(key) if type(key) in SCALARS else "..."
            error.prepend("[" + (shown if len(shown) <= 40 else shown[:39] + "…") + "]")
            raise


def _write_dict(encoder: ValueSink, value: Mapping[Any, Any]) -> None:
    if encoder.enter(value):
        encoder.feed(b"{%d:" % len(value))
        _write_items(encoder, value.items())
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


def _write_content(encoder: ValueSink, value: File | Directory) -> None:
    encoder.feed(b"C" + _str(type(value).__name__) + value.content_digest())


def _write_code(encoder: ValueSink, value: Any) -> None:
    encoder.write_code(value)


def _write_parts(
    tag: bytes, parts: Callable[[Any], tuple[Any, ...]]
) -> Callable[[ValueSink, Any], None]:
    """Return a writer for objects that pickle refuses, or reduces to a name."""

    def write(encoder: ValueSink, value: Any) -> None:
        if encoder.enter(value):
            encoder.feed(b"=%s:" % tag)
            for part in parts(value):
                encoder.write(part)
            encoder.leave(value)

    return write


def _write_builtin(encoder: ValueSink, value: types.BuiltinFunctionType) -> None:
    """Feed a function made in C: by name, and with the object that it is bound to."""
    owner = value.__self__
    if owner is not None and not isinstance(owner, types.ModuleType):
        encoder.feed(b"=bound:")
        write_each(encoder, (value.__name__, owner))
        return
    module = str(value.__module__ or getattr(owner, "__name__", ""))
    if is_user_module_name(module):
        raise NotEncodableError(f"{module}.{value.__name__}, which is compiled")
    encoder.feed(b"=builtin:")
    write_each(encoder, (distribution_of(module), module, value.__qualname__))


def _context_parts(value: contextvars.ContextVar[Any]) -> tuple[Any, ...]:
    return value.name, value.get(())


def _memoryview_parts(value: memoryview) -> tuple[Any, ...]:
    return value.format, value.shape, value.tobytes()


def _type_variable_parts(value: Any) -> tuple[Any, ...]:
    names = ("__name__", "__bound__", "__constraints__", "__covariant__", "__contravariant__")
    return tuple(getattr(value, name, None) for name in names)


_type_variable = _write_parts(b"typevar", _type_variable_parts)
_view = _write_parts(b"view", lambda value: (type(value).__name__, tuple(value)))

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
    types.ModuleType: _write_code,
    types.FunctionType: _write_code,
    types.CodeType: _write_code,
    types.BuiltinFunctionType: _write_builtin,
    types.MethodType: _write_parts(b"method", lambda value: (value.__func__, value.__self__)),
    types.CellType: _write_parts(b"cell", lambda value: (value.cell_contents,)),
    type({}.keys()): _view,
    type({}.values()): _view,
    type({}.items()): _view,
    types.GetSetDescriptorType: _write_parts(
        b"getset", lambda value: (value.__objclass__, value.__name__)
    ),
    memoryview: _write_parts(b"memoryview", _memoryview_parts),
    struct.Struct: _write_parts(b"struct", lambda value: (value.format, value.size)),
    staticmethod: _write_parts(b"static", lambda value: (value.__func__,)),
    classmethod: _write_parts(b"class", lambda value: (value.__func__,)),
    property: _write_parts(b"property", lambda value: (value.fget, value.fset, value.fdel)),
    functools.cached_property: _write_parts(
        b"cached_property", lambda value: (value.func, value.attrname)
    ),
    contextvars.ContextVar: _write_parts(b"context", _context_parts),
    threading.local: _write_parts(b"local", lambda value: (vars(value),)),
    typing.TypeVar: _type_variable,
    typing.ParamSpec: _type_variable,
    typing.NewType: _write_parts(b"newtype", lambda value: (value.__name__, value.__supertype__)),
    File: _write_content,
    Directory: _write_content,
}


def write_path(encoder: ValueSink, value: PurePath) -> None:
    """Feed a path as what it is called; `File` stands for what it holds."""
    encoder.feed(b"p")
    encoder.write(type(value))
    encoder.write(str(value))


def type_text(kind: type) -> str:
    """Return a type as a message names it: ``sqlalchemy Engine``."""
    package = str(kind.__module__).partition(".")[0]
    return kind.__qualname__ if package == "builtins" else f"{package} {kind.__qualname__}"


def write_object(encoder: ValueSink, value: Any) -> None:
    """Feed any other object as what pickle would store of it."""
    if not encoder.enter(value):
        return
    if isinstance(value, TransparentWrapper):
        encoder.feed(b"w")
        write_each(encoder, value.key_parts())
    else:
        kind = type(value)
        try:
            _write_parts_of(encoder, kind, value)
        except NotEncodableError as error:
            if is_user_code(kind) or distribution_of(str(kind.__module__)).startswith("python "):
                raise
            # The inside of a library's object says nothing to its user.
            own = type_text(kind)
            raise NotEncodableError(error.reason if own in error.reason else own) from error
    encoder.leave(value)


def _write_parts_of(encoder: ValueSink, kind: type, value: Any) -> None:
    # Statically: a bound method shows its function's attributes, and some proxies anything.
    wrapped = inspect.getattr_static(value, "__wrapped__", None)
    is_wrapper = isinstance(wrapped, types.FunctionType)
    encoder.feed(b"O")
    encoder.write(kind)
    reduced = _reduce(value)
    if not isinstance(reduced, str):
        _write_reduced(encoder, kind, reduced)
    elif is_at(value, getattr(value, "__module__", kind.__module__), reduced):
        module = str(getattr(value, "__module__", kind.__module__))
        encoder.feed(b"g")
        write_each(encoder, (distribution_of(module), module, reduced))
        return
    elif not is_wrapper and not is_user_code(kind):
        raise NotEncodableError(type_text(kind))
    if is_wrapper:
        # A wrapper around a function (`functools.cache`, a compiler's) pickles as a mere name.
        encoder.feed(b"w")
        encoder.write(wrapped)
    if isinstance(reduced, str) or (is_user_code(kind) and _is_reduced_by_own_rules(kind)):
        # What pickle leaves out may still decide what a method returns.
        encoder.feed(b"+")
        _write_state(encoder, kind, object.__getstate__(value))


def _reduce(value: Any) -> Any:
    kind = type_text(type(value))
    if kind.startswith("distributed "):
        # A future, an actor, a client: its name on a cluster says nothing of a value.
        raise NotEncodableError(f"{kind}, which stands for something on a cluster")
    try:
        reducer = copyreg.dispatch_table.get(type(value))
        return reducer(value) if reducer is not None else value.__reduce_ex__(5)
    except RecursionError:
        raise
    except Exception as error:
        raise NotEncodableError(f"{kind} ({error})") from error


def _is_reduced_by_own_rules(kind: type) -> bool:
    return kind in copyreg.dispatch_table or any(
        getattr(kind, name, None) is not getattr(object, name)
        for name in ("__reduce_ex__", "__reduce__", "__getstate__")
    )


def _write_reduced(encoder: ValueSink, kind: type, reduced: Any) -> None:
    rebuild, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
    encoder.feed(b"o")
    encoder.write(rebuild)
    encoder.write(tuple(arguments))
    _write_state(encoder, kind, state)
    if items is not None:
        listed = list(items)
        encoder.feed(b"l%d:" % len(listed))
        write_each(encoder, listed)
    if pairs is not None:
        listed = list(pairs)
        encoder.feed(b"d%d:" % len(listed))
        _write_items(encoder, listed)


def _write_state(encoder: ValueSink, kind: type, state: Any) -> None:
    """Feed an object's attributes, sorted by name: in which order they were set is chance."""
    if isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], dict):
        encoder.feed(b"2")  # (the dict, the slots)
        _write_state(encoder, kind, state[0])
        _write_state(encoder, kind, state[1])
    elif type(state) is dict and all(type(name) is str for name in state):
        names = [name for name in sorted(state) if not _is_remembered(kind, name)]
        encoder.feed(b"a%d:" % len(names))
        for name in names:
            encoder.feed(_str(name))
            try:
                encoder.write(state[name])
            except NotEncodableError as error:
                error.prepend(f".{name}")
                raise
    else:
        encoder.feed(b"v")
        encoder.write(state)


def _is_remembered(kind: type, name: str) -> bool:
    """Return whether a library computed an attribute from the others.

    A property of the user's class counts: it may have been assigned.
    """
    if name in _REMEMBERED.get(f"{kind.__module__}.{kind.__qualname__}", ()):
        return True
    attribute = inspect.getattr_static(kind, name, None)
    if not isinstance(attribute, functools.cached_property):
        return False
    return isinstance(attribute.func, types.FunctionType) and not is_user_code(attribute.func)


#: Attributes of libraries' objects that follow from others, or differ between processes.
_REMEMBERED: Final[Mapping[str, tuple[str, ...]]] = {
    "numpy.vectorize": ("_ufunc",),
    "pydantic._internal._decorators.Decorator": ("cls_ref",),
}


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
