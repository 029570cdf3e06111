"""How numpy and pandas values are written; neither is imported for it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from scalable_nb.cache.hashing.value_writers import write_each, write_object

if TYPE_CHECKING:
    from scalable_nb.cache.hashing.encoder import Encoder

# Elements that are brought into C order at a time: 8 MB of doubles instead of a whole copy.
_CHUNK_ELEMENTS: Final = 1 << 20


def array_writer(kind: type) -> Callable[[Encoder, Any], None] | None:
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


def _write_numpy_scalar(encoder: Encoder, value: Any) -> None:
    # As an array without dimensions, but no array.
    encoder.feed(b"y")
    _write_array(encoder, sys.modules["numpy"].asarray(value))


def _write_array(encoder: Encoder, value: Any) -> None:
    """Feed dtype, shape and the elements in C order, however they lie in memory."""
    encoder.feed(b"Y")
    write_each(encoder, (value.dtype.str, repr(value.dtype), value.shape))
    _write_elements(encoder, value)


def _write_elements(encoder: Encoder, value: Any) -> None:
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


def _write_objects(encoder: Encoder, value: Any) -> None:
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


def _write_frame(encoder: Encoder, value: Any) -> None:
    """Feed a frame column by column: how pandas groups them in blocks is its own affair."""
    if encoder.enter(value):
        encoder.feed(b"DF%d:" % value.shape[1])
        write_each(encoder, (value.attrs, value.flags.allows_duplicate_labels))
        write_each(encoder, (value.index, value.columns))
        for position in range(value.shape[1]):
            _write_column(encoder, value.iloc[:, position])
        encoder.leave(value)


def _write_series(encoder: Encoder, value: Any) -> None:
    if encoder.enter(value):
        encoder.feed(b"SE")
        write_each(encoder, (value.attrs, value.flags.allows_duplicate_labels))
        write_each(encoder, (value.name, value.index))
        _write_column(encoder, value)
        encoder.leave(value)


def _write_column(encoder: Encoder, column: Any) -> None:
    array, pandas = column.array, sys.modules["pandas"]
    # Without pyarrow an array of texts is one of numpy's, too.
    is_plain = isinstance(array, pandas.arrays.NumpyExtensionArray) and not isinstance(
        array.dtype, pandas.StringDtype
    )
    encoder.write(array.to_numpy() if is_plain else array)


def _write_extension_array(encoder: Encoder, value: Any) -> None:
    if isinstance(value.dtype, sys.modules["pandas"].StringDtype):
        # Arrow keeps texts in chunks and slices of larger buffers, which say nothing; nor does
        # whether it is Arrow that keeps them.
        encoder.feed(b"ST")
        encoder.write(repr(value.dtype.na_value))
        encoder.write(value.to_numpy(dtype=object))
    else:
        write_object(encoder, value)
