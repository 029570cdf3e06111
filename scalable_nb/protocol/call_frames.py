"""The frames of a call log: values as JSON, and bytes that stay opaque until they run.

::

    mark, lengths of header and body, digest, id of the signing key, signature    see `_FRAME`
    header                          a line of lengths, and a line of values, as JSON
    body                            the bytes among the values, one after the other

The digest is the SHA-256 of header and body. The signature covers it, the run, the file and the
position in it. Earlier versions wrote frames of mark, length and CRC-32 with a pickled dict, which
is read without importing anything; they count as unsigned.
"""

from __future__ import annotations

import io
import json
import pickle
import struct
from collections.abc import Iterator, Mapping
from hashlib import sha256
from itertools import accumulate, pairwise
from typing import Any, Final, NamedTuple
from zlib import crc32

from scalable_nb.signing import KEY_ID_BYTES, SIGNATURE_BYTES, Kind, SigningKey, own_key

_MARK: Final = b"CAL2"
_HEAD: Final = struct.Struct(f"<4sIQ32s{KEY_ID_BYTES}s")
_FRAME_BYTES: Final = _HEAD.size + SIGNATURE_BYTES
_PICKLED_MARK: Final = b"CALL"
_PICKLED_FRAME: Final = struct.Struct("<4sQI")
#: How all marks begin.
_MARKS: Final = b"CAL"

#: Key of an object in the header that replaces bytes of the body; its value is their index.
_BYTES: Final = "__bytes__"


class Place(NamedTuple):
    """The file that a frame belongs to; in another one its signature fails.

    Attributes
    ----------
    run_id : str
    file_name : str
    """

    run_id: str
    file_name: str

    def at(self, position: int) -> bytes:
        """Return what a frame at this position is signed as."""
        return f"{self.run_id}/{self.file_name}@{position}".encode()


class Frame(NamedTuple):
    """A frame that was read.

    Attributes
    ----------
    values : dict or None
        None if it is damaged.
    is_signed : bool
        Whether the user's key signed it at this place.
    """

    values: dict[str, Any] | None
    is_signed: bool


def pack_frame(
    values: Mapping[str, Any], place: Place, position: int, signing_key: SigningKey
) -> bytes:
    """Return a signed frame.

    Parameters
    ----------
    values : mapping
        Of JSON's types, bytes and tuples, which are read as lists; keys of dicts are read as text.
        Bytes in a list ``arguments`` cost least.
    place : Place
    position : int
        Of the frame in its file.
    signing_key : SigningKey
    """
    described, parts = _describe(values)
    lengths = ", ".join(map(str, map(len, parts)))
    header = b"[%b]\n%b" % (lengths.encode(), described)
    content = b"".join((header, *parts))
    body_bytes = len(content) - len(header)
    digest = sha256(content).digest()
    head = _HEAD.pack(_MARK, len(header), body_bytes, digest, signing_key.key_id)
    return b"".join((head, signing_key.sign(Kind.CALL, place.at(position), head), content))


def _describe(values: Mapping[str, Any]) -> tuple[bytes, list[bytes]]:
    """Return values as JSON, and the bytes among them."""
    parts = [each for each in values.get("arguments", ()) if isinstance(each, bytes)]
    if parts:
        numbers = iter(range(len(parts)))
        arguments = [
            next(numbers) if isinstance(each, bytes) else each for each in values["arguments"]
        ]
        values = {**values, "arguments": arguments}
    count = len(parts)

    def refer(value: Any) -> Any:
        if isinstance(value, bytes):
            parts.append(value)
            return {_BYTES: len(parts) - 1}
        return value.item() if hasattr(value, "item") else list(value)

    # Kernels only: an environment of workers need not have it.
    import orjson

    # It takes a fifth of the time. It refuses large numbers and unpaired surrogates, and writes
    # infinity as null.
    try:
        described = orjson.dumps(values, default=refer)
    except TypeError:
        described = b"null"
    if b"null" in described:
        del parts[count:]
        described = json.dumps(values, default=refer).encode()
    return described, parts


def read_frames(data: bytes, place: Place) -> Iterator[Frame]:
    """Yield the frames of a file, and one that is damaged for each damaged part of it."""
    key = own_key()
    position, is_damaged = 0, False
    while position < len(data):
        frame, end = _read_frame(data, position, place, key)
        if end:
            yield frame
            position, is_damaged = end, frame.values is None
            continue
        if not is_damaged:
            yield frame
        is_damaged = True
        following = data.find(_MARKS, position + 1)
        position = following if following >= 0 else len(data)


_DAMAGED: Final = Frame(None, is_signed=False)


def _read_frame(data: bytes, position: int, place: Place, key: SigningKey) -> tuple[Frame, int]:
    """Return a frame and its end, which is 0 if no whole frame begins here."""
    if data.startswith(_PICKLED_MARK, position):
        return _read_pickled(data, position)
    start = position + _FRAME_BYTES
    if start > len(data):
        return _DAMAGED, 0
    head = data[position : position + _HEAD.size]
    mark, header_bytes, body_bytes, digest, key_id = _HEAD.unpack(head)
    end = start + header_bytes + body_bytes
    if mark != _MARK or end > len(data) or sha256(memoryview(data)[start:end]).digest() != digest:
        return _DAMAGED, 0
    signature = data[position + _HEAD.size : start]
    is_signed = key_id == key.key_id and key.has_signed(
        signature, Kind.CALL, place.at(position), head
    )
    body_start = start + header_bytes
    try:
        values = _unpack(data[start:body_start], data[body_start:end])
    except (ValueError, TypeError, LookupError, RecursionError):
        values = None
    return Frame(values, is_signed), end


def _unpack(header: bytes, body: bytes) -> dict[str, Any]:
    lengths, described = header.split(b"\n", 1)
    ends = [*accumulate(json.loads(lengths), initial=0)]
    parts = [body[start:end] for start, end in pairwise(ends)]

    def resolve(found: dict[str, Any]) -> Any:
        return parts[found[_BYTES]] if found.keys() == {_BYTES} else found

    values: dict[str, Any] = json.loads(described, object_hook=resolve)
    if "arguments" in values:
        values["arguments"] = [
            parts[each] if isinstance(each, int) else each for each in values["arguments"]
        ]
    return values


# --- frames of earlier versions ------------------------------------------------------


def _read_pickled(data: bytes, position: int) -> tuple[Frame, int]:
    start = position + _PICKLED_FRAME.size
    if start > len(data):
        return _DAMAGED, 0
    _, length, checksum = _PICKLED_FRAME.unpack_from(data, position)
    end = start + length
    if end > len(data) or crc32(memoryview(data)[start:end]) != checksum:
        return _DAMAGED, 0
    try:
        values = _PlainUnpickler(io.BytesIO(data[start:end])).load()
    except Exception:  # noqa: BLE001 - a pickle from elsewhere may contain anything
        values = None
    return Frame(values if isinstance(values, dict) else None, is_signed=False), end


class _PlainUnpickler(pickle.Unpickler):
    """Reads values of Python's basic types, and refuses to import anything."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name} is not a plain value")
