"""The folder of stored results. Its files are the truth; an index over them can be rebuilt."""

from __future__ import annotations

import json
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from scalable_nb.cache.content import collect_pickled
from scalable_nb.cache.output_files import describe_outputs, find_changed_output
from scalable_nb.cache.result_file import (
    BadResultFileError,
    Packed,
    UnsignedFileError,
    pack,
    read_header,
    read_result,
    write_result,
)
from scalable_nb.errors import ScalableError
from scalable_nb.paths import private_folder
from scalable_nb.signing import SigningKey, own_key

_SUFFIX: Final = ".result"
_MANY: Final = 1000
_KEY: Final = re.compile(r"[0-9a-f]{64}")
# O_NONBLOCK: the open does not wait for the other end of a FIFO.
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITABLE_BY_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH


class ResultStoreError(ScalableError):
    """A stored result cannot be written or read; the call itself is unaffected."""


class UnstorableResultError(ResultStoreError):
    """A result cannot be pickled, so it cannot be stored."""


class OversizedResultError(ResultStoreError):
    """A result exceeds the size up to which results are stored by default."""


class CorruptResultError(ResultStoreError):
    """The file of a stored result is damaged; it was set aside and is never returned."""


class UnsignedResultError(ResultStoreError):
    """The file of a stored result was not signed with this user's key; it stays, and is a miss."""


class ChangedOutputError(ResultStoreError):
    """A stored result contains a `File` or `Directory` that was removed or changed since."""


class UnreadableResultError(ResultStoreError):
    """The file of a stored result is intact, but it cannot be unpickled in this process.

    Mostly because a class it needs is not there in this process. The file stays.
    """


@dataclass(frozen=True)
class StoredResult:
    """A result that was written.

    Attributes
    ----------
    key : str
        64 hex digits.
    nbytes : int
        Size of the file in bytes.
    path : Path
        The file.
    meta : mapping
        What the file says of itself: ``created_at`` (seconds since the epoch) and what was
        given to `ResultStore.put`.
    """

    key: str
    nbytes: int
    path: Path
    meta: Mapping[str, Any] = field(default_factory=dict)


class ResultStore:
    """Stored results, one file each: ``<folder>/<first two digits>/<key>.result``.

    Any number of processes of this user, on any machines that see the folder, may read and
    write at once. A file appears whole, by renaming, or not at all. It is not forced to the
    disk (`fsync` costs more than many a task): after a power cut the last results may be
    torn, which is noticed, and they are computed again; the death of a process, however
    sudden, loses nothing that was renamed.

    Parameters
    ----------
    folder : Path
        Made, with mode 0700, when the first result is written.
    compress : bool
        Whether what is written here is compressed; what is read may be either.
    """

    def __init__(self, folder: Path, *, compress: bool = False) -> None:
        self.folder = Path(folder)
        self._root = str(folder)
        self._compresses = compress
        self._is_checked = False

    def __repr__(self) -> str:
        return f"ResultStore({str(self.folder)!r})"

    def path(self, key: str) -> Path:
        """The file of a key, whether it exists or not.

        Raises
        ------
        ValueError
            When it is no key: 64 hex digits.
        """
        return Path(self._file(key))

    def contains(self, key: str) -> bool:
        """Whether there is a file for a key; one system call."""
        try:
            os.stat(self._file(key))  # noqa: PTH116 - a Path costs more than the call
        except OSError:
            return False
        return True

    def contained(self, keys: Set[str]) -> set[str]:
        """Those keys for which there is a file.

        Whole shelves are listed where that is cheaper than a look for each.
        """
        if len(keys) < _MANY:
            return {key for key in keys if self.contains(key)}
        found: set[str] = set()
        for subfolder in {key[:2] for key in keys}:
            try:
                names = os.listdir(f"{self.folder}/{subfolder}")  # noqa: PTH208 - likewise
            except OSError:
                continue
            found.update(keys & {name.removesuffix(_SUFFIX) for name in names})
        return found

    def put(
        self,
        key: str,
        value: object,
        *,
        meta: Mapping[str, Any] | None = None,
        limit_bytes: int | None = None,
        tracks_files: bool = False,
    ) -> StoredResult:
        """Keep a result, in place of an earlier one.

        Parameters
        ----------
        key : str
            64 hex digits, see `scalable_nb.cache.keys`.
        value : object
            Pickled with protocol 5, by cloudpickle where pickle fails.
        meta : mapping, optional
            What to remember of it, as JSON: function, label, duration.
        limit_bytes : int, optional
            Size of the pickled value up to which it is stored.
        tracks_files : bool
            Whether the result is valid only as long as each `File` and `Directory` in it exists
            and is unchanged.

        Raises
        ------
        OversizedResultError
            When it is larger than the limit.
        UnstorableResultError
            When the value cannot be pickled; names its type. Or when a file in it that is to be
            tracked cannot be read.
        OSError
            When the file cannot be written: disk full, folder read-only (`RunFolderError`
            where it is missing and cannot be made, or is not private). Nothing is left
            behind, an earlier result stays.
        """
        _file_name(key)  # refuse a wrong key first
        try:
            with collect_pickled() as contents:
                packed = pack(value).compressed() if self._compresses else pack(value)
        except Exception as error:
            kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
            raise UnstorableResultError(
                f"a result of type {kind} cannot be kept, since it cannot be pickled: {error}"
            ) from error
        if limit_bytes is not None and packed.nbytes > limit_bytes:
            raise OversizedResultError(
                f"a result of {packed.nbytes / 1e6:.3g} MB is not kept: the limit is "
                f"{limit_bytes / 1e6:.3g} MB for a task that does not say `keep_results: true`"
            )
        try:
            outputs = describe_outputs(contents) if tracks_files else {}
        except OSError as error:
            raise UnstorableResultError(f"a result is not kept: {error}") from error
        if not self._is_checked:
            private_folder(self.folder)
            self._is_checked = True
        return self._write(key, packed, {**(meta or {}), **outputs, "created_at": time.time()})

    def _write(self, key: str, packed: Packed, meta: Mapping[str, Any]) -> StoredResult:
        file = self._file(key)
        part = f"{file}.{os.getpid()}.{secrets.token_hex(4)}.part"
        try:
            with self._create(part) as target:
                nbytes = write_result(target, key, packed, meta, own_key())
            os.replace(part, file)  # noqa: PTH105
        except BaseException:
            Path(part).unlink(missing_ok=True)
            raise
        return StoredResult(key, nbytes, Path(file), meta)

    def get(self, key: str) -> Any:
        """Return the result that is stored under a key.

        Raises
        ------
        KeyError
            When there is none.
        CorruptResultError
            When its file is damaged; it has been renamed to ``<key>.result.corrupt``.
        UnsignedResultError
            When it was not signed with this user's key.
        UnreadableResultError
            When its file is whole, but cannot be unpickled here.
        ChangedOutputError
            When a file in it that is tracked was removed or changed.
        OSError
            When the file is there and cannot be read, or is another user's.
        """
        return self._load(key, *self._open(key), own_key())

    @contextmanager
    def many(self) -> Iterator[Callable[[str], Any]]:
        """Give a function that does what `get` does, for many keys.

        Each shelf is looked up once. In one that nobody else can enter, no file is asked for its
        owner.
        """
        subfolders: dict[str, tuple[int, bool]] = {}
        signing_key = own_key()

        def read(key: str) -> Any:
            file, name = _file_name(key), key[:2]
            if name not in subfolders:
                subfolders[name] = self._open_subfolder(key)
            subfolder, is_private = subfolders[name]
            if not is_private:
                return self.get(key)
            try:
                descriptor = os.open(file, _READ, dir_fd=subfolder)
            except FileNotFoundError:
                raise KeyError(key) from None
            return self._load(key, descriptor, None, signing_key)

        try:
            yield read
        finally:
            for descriptor, _ in subfolders.values():
                os.close(descriptor)

    def _open_subfolder(self, key: str) -> tuple[int, bool]:
        try:
            subfolder = os.open(f"{self._root}/{key[:2]}", _READ | os.O_DIRECTORY)
        except FileNotFoundError:
            raise KeyError(key) from None
        info = os.fstat(subfolder)
        return subfolder, info.st_uid == os.getuid() and not info.st_mode & (
            stat.S_IRWXG | stat.S_IRWXO
        )

    def _load(self, key: str, descriptor: int, nbytes: int | None, signing_key: SigningKey) -> Any:
        try:
            header, packed = read_result(descriptor, nbytes, key, signing_key)
        except BadResultFileError as error:
            raise self._quarantine(key, descriptor, error) from error
        except UnsignedFileError:
            raise self._unsigned() from None
        finally:
            os.close(descriptor)
        changed = find_changed_output(header.meta)
        if changed:
            raise ChangedOutputError(f"the stored result contains {changed}: the call runs again")
        try:
            return packed.load()
        except Exception as error:
            raise UnreadableResultError(
                f"the kept result {self._file(key)!r} cannot be unpickled in this process: "
                f"{type(error).__name__}: {error}"
            ) from error

    def check(self, key: str) -> bool:
        """Read a stored result without unpickling it; return whether it is signed.

        Raises
        ------
        KeyError, CorruptResultError, OSError
            As `get`.
        """
        return self._read(key)[1]

    def trust(self, key: str) -> bool:
        """Sign a stored result that is not signed with this user's key; return whether it was not.

        Raises
        ------
        KeyError, CorruptResultError, OSError
            As `get`.
        """
        packed, is_signed, meta = self._read(key)
        if not is_signed:
            self._write(key, packed, meta)
        return not is_signed

    def _read(self, key: str) -> tuple[Packed, bool, dict[str, Any]]:
        """Return an intact stored result, whether it is signed, and its meta."""
        descriptor, nbytes = self._open(key)
        try:
            header, packed = read_result(descriptor, nbytes, key, None)
            try:
                header.check_signature(own_key())
            except UnsignedFileError:
                return packed, False, json.loads(header.meta)
        except BadResultFileError as error:
            raise self._quarantine(key, descriptor, error) from error
        finally:
            os.close(descriptor)
        return packed, True, json.loads(header.meta)

    def is_signed(self, key: str) -> bool:
        """Return whether a stored result exists that is signed, by its header."""
        try:
            descriptor, nbytes = self._open(key)
        except (KeyError, OSError):
            return False
        try:
            read_header(descriptor, nbytes, key).check_signature(own_key())
        except (BadResultFileError, UnsignedFileError):
            return False
        finally:
            os.close(descriptor)
        return True

    def meta(self, key: str) -> StoredResult:
        """Return size and meta of a stored result, without reading the result.

        Raises
        ------
        KeyError
            When there is none.
        CorruptResultError
            When the header of its file is damaged; the file has been set aside.
        """
        descriptor, nbytes = self._open(key)
        try:
            meta = json.loads(read_header(descriptor, nbytes, key).meta)
        except BadResultFileError as error:
            raise self._quarantine(key, descriptor, error) from error
        finally:
            os.close(descriptor)
        return StoredResult(key, nbytes, self.path(key), meta)

    def discard(self, key: str) -> bool:
        """Remove a stored result; return whether it existed."""
        try:
            self.path(key).unlink()
        except FileNotFoundError:
            return False
        return True

    def iter_keys(self) -> Iterator[str]:
        """Yield the keys of all stored results, in no particular order."""
        if not self.folder.is_dir():
            return
        for subfolder in self.folder.iterdir():
            if len(subfolder.name) == 2 and subfolder.is_dir():
                for file in subfolder.iterdir():
                    key = file.name.removesuffix(_SUFFIX)
                    if file.name.endswith(_SUFFIX) and _KEY.fullmatch(key):
                        yield key

    # --- internals -------------------------------------------------------------------

    def _unsigned(self) -> UnsignedResultError:
        # The same for all results of the folder, so that it is reported once.
        return UnsignedResultError(
            f"results in {str(self.folder)!r} are not signed with your key: they are from an "
            "earlier version or from elsewhere, and are computed again. `scalable cache trust` "
            "signs them, if you trust their authors, whose code runs when they are read"
        )

    def _file(self, key: str) -> str:
        return f"{self._root}/{key[:2]}/{_file_name(key)}"

    def _create(self, part: str) -> BinaryIO:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(part, flags, 0o600)
        except FileNotFoundError:  # the first result on this shelf, or somebody cleared them all
            private_folder(self.folder)
            Path(part).parent.mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(part, flags, 0o600)
        return cast(BinaryIO, os.fdopen(descriptor, "wb"))

    def _open(self, key: str) -> tuple[int, int]:
        path = self._file(key)
        try:
            descriptor = os.open(path, _READ)
        except FileNotFoundError:
            raise KeyError(key) from None
        info = os.fstat(descriptor)
        # Unpickling runs what the file says, so it must be ours.
        if info.st_uid != os.getuid() or info.st_mode & _WRITABLE_BY_OTHERS:
            os.close(descriptor)
            raise PermissionError(
                f"the kept result {path!r} belongs to uid {info.st_uid} with mode "
                f"{stat.S_IMODE(info.st_mode):04o}: a result that others can write is not "
                "trusted. Remove it, or set SCALABLE_CACHE_DIR to a folder of your own."
            )
        return descriptor, info.st_size

    def _quarantine(
        self, key: str, descriptor: int, error: BadResultFileError
    ) -> CorruptResultError:
        path = self.path(key)
        quarantined = path.with_name(f"{path.name}.corrupt")
        done = "was set aside"
        try:
            # Another process may have written it anew in the meantime.
            if path.stat().st_ino == os.fstat(descriptor).st_ino:
                path.replace(quarantined)
        except OSError as failed:
            done = f"could not be set aside ({failed.strerror})"
        return CorruptResultError(
            f"the kept result {str(path)!r} is damaged ({error}) and {done}; "
            "the call is computed again"
        )


def _file_name(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise ValueError(f"{key!r} is no key of a result: expected 64 hex digits")
    return f"{key}{_SUFFIX}"
