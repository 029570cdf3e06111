"""`File` and `Directory`: arguments that stand for what lies at a path, not for the path."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

# A file that was written this short a time ago may be written again without its times
# changing (git calls such an entry "racily clean"), so its digest is not remembered.
_SETTLED_AFTER_S: Final = 2.0
_REMEMBERED_FILES: Final = 100_000

_FileStamp = tuple[int, int, int, int, int]
_digests: dict[_FileStamp, bytes] = {}
_lock = threading.Lock()
_pickled = threading.local()


class _Content:
    """A path whose content is what counts; usable wherever a path is."""

    __slots__ = ("path",)

    def __init__(self, path: str | os.PathLike[str]) -> None:
        # Absolute, so that it means the same file on a worker with another working directory.
        self.path: Final = Path(path).absolute()

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.path == self.path

    def __hash__(self) -> int:
        return hash((type(self), self.path))

    def __reduce__(self) -> tuple[type[_Content], tuple[str]]:
        pickled: list[Any] | None = getattr(_pickled, "contents", None)
        if pickled is not None:
            pickled.append(self)
        return type(self), (str(self.path),)

    def content_digest(self) -> bytes:
        """SHA-256 of the content (32 bytes), read now."""
        raise NotImplementedError


class File(_Content):
    """A file as an argument: the key of the call holds its content, not its path.

    The function gets the `File` itself, which is path-like: ``open(data)``,
    ``pandas.read_csv(data)``, ``data.path.stem``.

    Parameters
    ----------
    path : str or os.PathLike
        Where the file lies; made absolute at once.

    Notes
    -----
    The content is read when the key is made. The digest of a file that has not changed
    (size, inode, times of change) is remembered in this process.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (folder / "a.txt").write_text("x"), (folder / "b.txt").write_text("x")
    >>> File(folder / "a.txt").content_digest() == File(folder / "b.txt").content_digest()
    True
    """

    __slots__ = ()

    def content_digest(self) -> bytes:
        """SHA-256 of the file's bytes (32 bytes).

        Raises
        ------
        OSError
            When there is no such file, it cannot be read, or it is a folder.
        """
        if self.path.is_dir():
            raise IsADirectoryError(f"{self!r} is a folder: use Directory({str(self.path)!r})")
        return _file_digest(self.path)


class Directory(_Content):
    """A folder as an argument: the key of the call holds the tree's content, not its path.

    Names and contents of all files below it count, hidden ones and those behind symbolic
    links too; times, owners and modes do not.

    Parameters
    ----------
    path : str or os.PathLike
        Where the folder lies; made absolute at once.
    """

    __slots__ = ()

    def content_digest(self) -> bytes:
        """SHA-256 over the sorted tree (32 bytes).

        Raises
        ------
        OSError
            When there is no such folder, it is a file, or something in it cannot be read.
        """
        if not self.path.is_dir():
            if self.path.exists():
                raise NotADirectoryError(f"{self!r} is a file: use File({str(self.path)!r})")
            raise FileNotFoundError(f"{self!r} does not exist")
        digest = hashlib.sha256()
        for name, content in _entries(self.path, "", frozenset()):
            encoded = os.fsencode(name)
            digest.update(b"%d:%s" % (len(encoded), encoded) + content)
        return digest.digest()


@contextmanager
def collect_pickled() -> Iterator[list[File | Directory]]:
    """Yield a list to which each `File` and `Directory` is added that this thread pickles."""
    contents: list[File | Directory] = []
    _pickled.contents = contents
    try:
        yield contents
    finally:
        del _pickled.contents


def _entries(
    folder: Path, prefix: str, above: frozenset[tuple[int, int]]
) -> list[tuple[str, bytes]]:
    """Every entry below a folder, sorted by name: (relative name, 33 bytes for its content)."""
    info = folder.stat()
    stamp = (info.st_dev, info.st_ino)
    if stamp in above:
        raise OSError(f"{str(folder)!r} is a link to a folder that contains it")
    found: list[tuple[str, bytes]] = []
    with os.scandir(folder) as listing:
        entries = sorted(listing, key=lambda entry: entry.name)
    for entry in entries:
        name, path = prefix + entry.name, folder / entry.name
        if entry.is_dir():
            found.append((name, b"d" + bytes(32)))
            found.extend(_entries(path, name + "/", above | {stamp}))
        elif entry.is_symlink() and not path.exists():
            target = os.fsencode(path.readlink())
            found.append((name, b"l" + hashlib.sha256(target).digest()))
        else:
            found.append((name, b"f" + _file_digest(path)))
    return found


def _file_digest(path: Path) -> bytes:
    try:
        is_regular = path.is_file()  # before it is opened: opening a pipe would wait
        if not is_regular and path.exists():
            raise OSError(f"{str(path)!r} is not a regular file: it has no content to key on")
        file = path.open("rb")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"the file {str(path)!r} does not exist") from error
    with file:
        stamp, changed_at = _file_stamp(file.fileno())
        known = _digests.get(stamp)
        if known is not None:
            return known
        digest = hashlib.file_digest(file, "sha256").digest()
        is_settled = time.time() - changed_at > _SETTLED_AFTER_S
        if is_settled and _file_stamp(file.fileno())[0] == stamp:
            with _lock:
                if len(_digests) >= _REMEMBERED_FILES:
                    _digests.clear()
                _digests[stamp] = digest
    return digest


def _file_stamp(descriptor: int) -> tuple[_FileStamp, float]:
    """What changes when the file changes, and when it last did (seconds since the epoch)."""
    info = os.fstat(descriptor)
    stamp = (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)
    return stamp, max(info.st_mtime, info.st_ctime)
