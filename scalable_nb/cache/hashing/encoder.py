"""Any value as canonical, type-tagged bytes, fed to a SHA-256.

Two values get the same bytes only where a function could not tell them apart by value:
types count (``1``, ``1.0``, ``True``, ``"1"``, ``numpy.int64(1)`` all differ), ``-0.0`` is
not ``0.0``, every NaN is NaN, lists and dicts keep their order (a dict's order shows in
``list(d)`` and ``DataFrame(d)``), sets have none. Whether the parts of a value are one
object or several equal ones does not count.

What has no writer here goes through its own ``__reduce_ex__(5)``: the parts that pickle
would store are written by these same rules, so the bytes depend neither on the identity of
strings nor on the order in which attributes were set.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import PurePath
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

from scalable_nb.cache.hashing import value_writers
from scalable_nb.cache.hashing.dataless import is_dataless
from scalable_nb.cache.hashing.value_writers import NotEncodableError, array_writer

if TYPE_CHECKING:
    from hashlib import _Hash

#: Turns a function, class, module or code object into bytes that stand for its name and, if it
#: is the user's, its code. The second argument is True inside a set: then the bytes must
#: not depend on the order of its elements.
DescribeCode: TypeAlias = Callable[[Any, bool], bytes]


class _CycleError(Exception):
    """A container contains itself."""


class Encoder:
    """Feeds values to a hash.

    Parameters
    ----------
    describe : callable
        See `DescribeCode`.
    start : hash object, optional
        A SHA-256 to go on with (it is fed, not copied).
    opaque : tuple of type
        Objects of these types, and of those derived from them, count as their type.
    """

    __slots__ = (
        *("_alive", "_describe", "_hash", "_is_numbered", "_numbers", "_opaque", "_sets"),
        "feed",
    )

    def __init__(
        self, describe: DescribeCode, start: _Hash | None = None, *, opaque: tuple[type, ...] = ()
    ) -> None:
        self._describe = describe
        self._opaque = opaque
        self._hash = hashlib.sha256() if start is None else start
        #: Adds raw bytes. What is added must end recognisably, or be preceded by its length.
        self.feed: Callable[[Any], None] = self._hash.update
        # The containers that are being written (by id), or, in a value that contains itself,
        # all that were: number in order of appearance.
        self._numbers: dict[int, int] = {}
        self._alive: list[object] = []
        self._is_numbered = False
        self._sets = 0

    def add(self, value: object) -> None:
        """Feed a value.

        Raises
        ------
        NotEncodableError
            When some part of it has no canonical bytes.
        """
        scalar = value_writers.SCALARS.get(type(value))
        if scalar is not None:
            self.feed(scalar(value))
        else:
            self.feed(b"#" + self.digest_of(value))

    def hexdigest(self) -> str:
        """SHA-256 of everything fed so far (64 hex digits)."""
        return self._hash.hexdigest()

    def digest(self) -> bytes:
        """SHA-256 of everything fed so far (32 bytes)."""
        return self._hash.digest()

    def digest_of(self, value: object) -> bytes:
        """SHA-256 (32 bytes) of a value, which is not fed.

        Raises
        ------
        NotEncodableError
            When some part of it has no canonical bytes.
        """
        try:
            try:
                return self._separate_digest(value)
            except _CycleError:
                self._forget(is_numbered=True)
                return hashlib.sha256(b"cyclic" + self._separate_digest(value)).digest()
        except RecursionError:
            # Not chained: the cause has a thousand frames.
            raise NotEncodableError("it is nested too deeply") from None
        except (NotEncodableError, OSError):
            raise
        except Exception as error:
            raise NotEncodableError(
                f"{value_writers.type_text(type(value))}, reading which raises {error!r}"
            ) from error
        finally:
            self._forget(is_numbered=False)

    # --- for the writers -------------------------------------------------------------

    def write(self, value: Any) -> None:
        """Feed a part of a value."""
        kind = type(value)
        scalar = value_writers.SCALARS.get(kind)
        if scalar is not None:
            self.feed(scalar(value))
            return
        write = value_writers.WRITERS.get(kind) or array_writer(kind)
        if self._opaque and issubclass(kind, self._opaque):
            self._write_type(kind)
        elif write is not None:
            write(self, value)
        elif isinstance(value, type):
            self.write_code(value)
        elif is_dataless(value):
            self._write_type(kind)
        elif isinstance(value, ModuleType):
            self.write_code(value)
        elif isinstance(value, PurePath):
            value_writers.write_path(self, value)
        else:
            value_writers.write_object(self, value)

    def _write_type(self, kind: type) -> None:
        self.feed(b"t")
        self.write(f"{kind.__module__}:{kind.__qualname__}")

    def write_code(self, code: Any) -> None:
        """Feed a function, class, module or code object."""
        described = self._describe(code, self._sets > 0)
        self.feed(b"c%d:" % len(described) + described)

    def write_unordered(self, values: Iterable[Any]) -> None:
        """Feed values whose order means nothing."""
        if self._is_numbered:
            # Numbers would follow the order of the set, which differs between processes.
            raise NotEncodableError("it contains itself, by way of a set")
        self._sets += 1
        digests = sorted(self._separate_digest(value) for value in values)
        self._sets -= 1
        self.feed(b"%d:" % len(digests) + b"".join(digests))

    def enter(self, container: object) -> bool:
        """Note that a container begins; False where it was written before."""
        number = self._numbers.get(id(container))
        if number is None:
            self._numbers[id(container)] = len(self._numbers)
            self._alive.append(container)  # an id means something only while its object lives
            return True
        if not self._is_numbered:
            raise _CycleError
        self.feed(b"^%d;" % number)
        return False

    def leave(self, container: object) -> None:
        """Note that a container ends."""
        if not self._is_numbered:
            del self._numbers[id(container)]
            self._alive.pop()

    # --- internals -------------------------------------------------------------------

    def _separate_digest(self, value: object) -> bytes:
        outer, inner = self.feed, hashlib.sha256()
        self.feed = inner.update
        try:
            self.write(value)
        finally:
            self.feed = outer
        return inner.digest()

    def _forget(self, *, is_numbered: bool) -> None:
        self._numbers, self._alive, self._sets = {}, [], 0
        self._is_numbered = is_numbered
