"""The file of one stored result: checked header, what is known of it, pickle, large buffers.

::

    magic, version, whether compressed, sizes, key, digest   fixed size, see `_HEADER`
    checksum and signature                  of header, meta and lengths, see `_SEAL`
    meta                                    JSON, what a person may want to know
    lengths of the buffers                  8 bytes each
    pickle                                  protocol 5
    buffers                                 arrays and frames, as they lie in memory

The digest is the SHA-256 of pickle and buffers, and the signature covers it (see `signing`), so a
file that another key signed can still be checked for damage, and signed without writing its
content again. BLAKE2b over the content itself would take twice as long on processors with
instructions for SHA-256. The checksum (CRC-32) tells a damaged header from a foreign one.

Files of version 1 have CRC-32 only, and no signature.

Where a person asks for it, pickle and buffers are compressed, each by itself; sizes and checksum
are those of what is in the file. Files of both kinds lie side by side.
"""

from __future__ import annotations

import json
import mmap
import os
import pickle
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, BinaryIO, Final, NamedTuple, Protocol
from zlib import crc32

import cloudpickle

from scalable_nb.signing import KEY_ID_BYTES, SIGNATURE_BYTES, Kind, SigningKey

_MAGIC: Final = b"\x89SNBRES\n"
_VERSION: Final = 2
# magic, version, compression, bytes of meta, number of buffers, bytes of pickle, key, digest of
# pickle and buffers, id of the signing key.
_HEADER: Final = struct.Struct(f"<8sHHIIQ32s32s{KEY_ID_BYTES}s")
_SEAL: Final = struct.Struct(f"<I{SIGNATURE_BYTES}s")
_HEADER_1: Final = struct.Struct("<8sHHIIQ32s4s")
_SEAL_1: Final = struct.Struct("<I")
_VERSION_FIELD: Final = struct.Struct("<8sH")

_PLAIN, _ZLIB = 0, 1
# Numbers that were measured hardly get smaller at the slower levels.
_ZLIB_LEVEL: Final = 1

_LARGE_BYTES: Final = 4096  # smaller buffers cost more apart than the copy they save
_PAGE_BYTES: Final = 1 << 12
_FIRST_BYTES: Final = 1 << 15
_PIECE_BYTES: Final = 1 << 19
_MAPPED_BYTES: Final = 1 << 25  # below, malloc has pages that were used before


class BadResultFileError(Exception):
    """The bytes are not those of a whole, unchanged result; the message says what is wrong."""


class UnsignedFileError(Exception):
    """The file was not signed with this key: of an earlier version, or from elsewhere."""


@dataclass(frozen=True)
class Packed:
    """A value as it goes into a file.

    Attributes
    ----------
    pickled : bytes
    buffers : sequence of memoryview, bytearray or mmap
        Large parts of the value. `pack` does not copy them: they are valid as long as it exists.
    is_compressed : bool
    """

    pickled: bytes
    buffers: Sequence[memoryview | bytearray | mmap.mmap]
    is_compressed: bool = False

    @property
    def nbytes(self) -> int:
        """Size of both together in bytes."""
        return len(self.pickled) + sum(memoryview(buffer).nbytes for buffer in self.buffers)

    def compressed(self) -> Packed:
        """The same in fewer bytes."""
        parts = (self.pickled, *self.buffers)
        pickled, *buffers = (zlib.compress(part, _ZLIB_LEVEL) for part in parts)
        return Packed(pickled, tuple(map(memoryview, buffers)), is_compressed=True)

    def load(self) -> Any:
        """Unpickle the value, which runs the code of its author.

        Raises
        ------
        Exception
            Whatever unpickling raises.
        """
        pickled, buffers = self.pickled, self.buffers
        if self.is_compressed:
            pickled = zlib.decompress(pickled)
            buffers = [bytearray(zlib.decompress(each)) for each in buffers]
        return pickle.loads(pickled, buffers=buffers)


class ResultHeader(NamedTuple):
    """The checked header of a result file.

    Attributes
    ----------
    start : bytes
        The first bytes of the file, with all that follows if it is small.
    nbytes : int
        Of everything before the pickle.
    meta : bytes
        JSON.
    pickle_bytes : int
    buffer_bytes : tuple of int
    digest : bytes
        Of pickle and buffers.
    is_compressed : bool
    signature : bytes
        Empty in files of version 1.
    key_id : bytes
        Of the key that signed it.
    signed : bytes
        The bytes that the signature covers.
    """

    start: bytes
    nbytes: int
    meta: bytes
    pickle_bytes: int
    buffer_bytes: tuple[int, ...]
    digest: bytes
    is_compressed: bool
    signature: bytes
    key_id: bytes
    signed: bytes

    def check_signature(self, signing_key: SigningKey) -> None:
        """Refuse a file that this key has not signed.

        Raises
        ------
        UnsignedFileError
            If no key or another one signed it.
        BadResultFileError
            If the signature does not fit.
        """
        if self.key_id != signing_key.key_id:
            raise UnsignedFileError
        if not signing_key.has_signed(self.signature, Kind.RESULT, b"", self.signed):
            raise BadResultFileError("its signature does not fit")


def pack(value: object) -> Packed:
    """Pickle a value, its large buffers apart.

    Raises
    ------
    Exception
        Whatever pickling raises.
    """
    found: list[memoryview] = []

    def add_out_of_band(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        is_small = raw.nbytes < _LARGE_BYTES
        if not is_small:
            found.append(raw)
        return is_small  # those stay in the pickle

    try:
        pickled = pickle.dumps(value, protocol=5, buffer_callback=add_out_of_band)
        # What a notebook defines would go by name, and another process has no such name.
        is_portable = b"__main__" not in pickled
    except Exception:  # noqa: BLE001 - pickling raises anything; cloudpickle has the last word
        is_portable = False
    if not is_portable:
        found.clear()
        pickled = cloudpickle.dumps(value, protocol=5, buffer_callback=add_out_of_band)
    return Packed(pickled, tuple(found))


def write_result(
    file: BinaryIO, key: str, packed: Packed, meta: Mapping[str, Any], signing_key: SigningKey
) -> int:
    """Write a whole result file, signed; return its size in bytes."""
    described = json.dumps(dict(meta), default=str).encode()
    digest = sha256(packed.pickled)
    for buffer in packed.buffers:
        digest.update(buffer)
    lengths = [memoryview(buffer).nbytes for buffer in packed.buffers]
    header = _HEADER.pack(
        _MAGIC,
        _VERSION,
        _ZLIB if packed.is_compressed else _PLAIN,
        len(described),
        len(lengths),
        len(packed.pickled),
        bytes.fromhex(key),
        digest.digest(),
        signing_key.key_id,
    )
    rest = described + struct.pack(f"<{len(lengths)}Q", *lengths)
    # The header contains the key of the result.
    signature = signing_key.sign(Kind.RESULT, b"", header + rest)
    seal = _SEAL.pack(crc32(rest, crc32(header)), signature)
    parts = b"".join((header, seal, rest, packed.pickled))
    file.write(parts)
    for buffer in packed.buffers:
        file.write(buffer)
    return len(parts) + sum(lengths)


def read_result(
    descriptor: int, size: int | None, key: str, signing_key: SigningKey | None
) -> tuple[ResultHeader, Packed]:
    """Read a result file and check it; nothing is unpickled.

    Parameters
    ----------
    descriptor : int
        The file, open for reading; its position does not matter.
    size : int or None
        Its size in bytes; None if it is not known.
    key : str
        64 hex digits.
    signing_key : SigningKey or None
        Refuse a file that this key has not signed; None accepts any intact file.

    Raises
    ------
    BadResultFileError
        If it is not the whole, unchanged file of this key.
    UnsignedFileError
    """
    head = read_header(descriptor, size, key)
    if signing_key is not None:
        head.check_signature(signing_key)
    position = head.nbytes
    pickled = _read(descriptor, head.start, position, head.pickle_bytes)
    position += head.pickle_bytes
    digest = sha256(pickled) if head.signature else _Crc32(pickled)
    buffers: list[bytearray | mmap.mmap] = []
    for length in head.buffer_bytes:
        buffer = _new_buffer(length)
        _read_into(descriptor, buffer, position, digest)
        position += length
        buffers.append(buffer)
    if digest.digest() != head.digest:
        raise BadResultFileError("its checksum does not fit its content")
    return head, Packed(pickled, buffers, head.is_compressed)


def read_header(descriptor: int, size: int | None, key: str) -> ResultHeader:
    """Read all that comes before the result, which is neither read nor checked.

    Raises
    ------
    BadResultFileError
        If the header is not that of a whole file of this key.
    """
    # Small results are here already.
    start = os.pread(descriptor, _PAGE_BYTES if size is None else min(size, _FIRST_BYTES), 0)
    if size is None:
        is_whole = len(start) < _PAGE_BYTES
        size = len(start) if is_whole else os.fstat(descriptor).st_size
    if len(start) < _HEADER_1.size + _SEAL_1.size:
        raise BadResultFileError(f"it ends after {size} bytes, within the header")
    magic, version = _VERSION_FIELD.unpack_from(start)
    if magic != _MAGIC:
        raise BadResultFileError("it does not begin as a result file does")
    layout, seal = (_HEADER_1, _SEAL_1) if version == 1 else (_HEADER, _SEAL)
    fixed_bytes = layout.size + seal.size
    if len(start) < fixed_bytes:
        raise BadResultFileError(f"it ends after {size} bytes, within the header")
    _, _, compression, meta_bytes, count, pickle_bytes, name, digest, *key_id = layout.unpack_from(
        start
    )
    rest_bytes = meta_bytes + 8 * count
    if fixed_bytes + rest_bytes + pickle_bytes > size:
        raise BadResultFileError(f"it has {size} bytes, fewer than its header says")
    rest = _read(descriptor, start, fixed_bytes, rest_bytes)
    header = start[: layout.size]
    checksum, *signature = seal.unpack_from(start, layout.size)
    if crc32(rest, crc32(header)) != checksum:
        raise BadResultFileError("the checksum of its header does not fit")
    if version not in (1, _VERSION):
        raise BadResultFileError(f"it has format {version}; this version reads {_VERSION}")
    if compression not in (_PLAIN, _ZLIB):
        raise BadResultFileError(f"its compression {compression} is not known to this version")
    if name != bytes.fromhex(key):
        raise BadResultFileError(f"it holds the result of {name.hex()}")
    lengths = struct.unpack_from(f"<{count}Q", rest, meta_bytes) if count else ()
    expected = fixed_bytes + rest_bytes + pickle_bytes + sum(lengths)
    if expected != size:
        raise BadResultFileError(f"it has {size} bytes instead of {expected}")
    return ResultHeader(
        start,
        fixed_bytes + rest_bytes,
        rest[:meta_bytes],
        pickle_bytes,
        lengths,
        digest,
        compression == _ZLIB,
        signature[0] if signature else b"",
        key_id[0] if key_id else b"",
        header + rest,
    )


class _Checksum(Protocol):
    def update(self, data: Any, /) -> None: ...

    def digest(self) -> bytes: ...


class _Crc32:
    """The checksum of files of version 1."""

    def __init__(self, data: bytes) -> None:
        self._value = crc32(data)

    def update(self, data: Any, /) -> None:
        self._value = crc32(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "little")


def _read(descriptor: int, start: bytes, position: int, length: int) -> bytes:
    """Some bytes of the file, of which the first ones are known."""
    if position + length <= len(start):
        return start[position : position + length]
    data = bytearray(length)
    _read_into(descriptor, data, position, None)
    return bytes(data)


def _new_buffer(length: int) -> bytearray | mmap.mmap:
    """Memory of its own and writable, as that of the array was that it becomes."""
    if length < _MAPPED_BYTES:
        return bytearray(length)
    return mmap.mmap(-1, length)  # not filled with zeros first, which costs as much as reading


def _read_into(
    descriptor: int,
    buffer: bytearray | mmap.mmap,
    position: int,
    checksum: _Checksum | None,
) -> None:
    """Fill a buffer from a position on, and continue a checksum.

    Piece by piece, so that each is summed while it is in the processor's cache.
    """
    view = memoryview(buffer)
    while view:
        count = os.preadv(descriptor, [view[:_PIECE_BYTES]], position)
        if not count:
            raise BadResultFileError("it ended while it was read")
        if checksum is not None:
            checksum.update(view[:count])
        view = view[count:]
        position += count
