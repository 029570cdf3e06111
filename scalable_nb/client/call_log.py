"""The call log: functions and arguments of the tasks of a run, to call them again.

The client writes it before a task becomes runnable; it is read when kernel and host are gone.
Each client has a file of its own in ``calls/``, to which it only ever appends::

    mark, length, CRC-32      fixed size, see `_FRAME`
    entry                     a pickled dict of plain values: function, batch, calls or members

A function is written once, arguments in one entry per submission, and what is large once per
content, in ``calls/content/<SHA-256>``. Whatever byte a SIGKILL comes at, all entries before
it can be read.
"""

from __future__ import annotations

import hashlib
import pickle
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple
from zlib import crc32

from scalable_nb.paths import private_folder
from scalable_nb.protocol.call import Call

_MARK: Final = b"CALL"
_FRAME: Final = struct.Struct("<4sQI")
SUFFIX: Final = ".calls"
CONTENT_FOLDER: Final = "content"


class RecordedCall(NamedTuple):
    """One call as it is handed to the log."""

    key: Any
    call: Call
    input_keys: tuple[Any, ...]
    preview: str


@dataclass(frozen=True)
class RecordedBatch:
    """The properties shared by the calls of one submission.

    Attributes
    ----------
    batch_id : str
    name : str
        Of the `map`; empty for a single `submit`.
    function_name, task, component, tag : str
    is_async : bool
        Whether the function is a coroutine function.
    wire : dict
        The policy and the folder of stored results, as in the tasks' annotation.
    placing : dict
        Workers, resources and priority, as for Dask.
    identity : str
        Digest of the function, see `cache.hashing.function_identity`; empty if it has none.
    at : float
        Time of the submission, seconds since the epoch.
    """

    batch_id: str
    name: str
    function_name: str
    task: str = ""
    component: str = ""
    tag: str = ""
    is_async: bool = False
    wire: Mapping[str, Any] = field(default_factory=dict)
    placing: Mapping[str, Any] = field(default_factory=dict)
    identity: str = ""
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class RecordedTask:
    """A task in the log.

    Attributes
    ----------
    key : object
    batch : RecordedBatch
    function : bytes
        Pickled; empty if it was not recorded.
    about : bytes
        Description of the function, see `protocol.call.Call`.
    packed : bytes, list of str or None
        The pickled arguments, or digests of them and their buffers; None where they were not
        recorded.
    result_key : str
        Under which its result is stored; empty if it is not.
    input_keys : tuple
        Keys of the tasks whose results it takes.
    preview : str
        The arguments as text.
    """

    key: Any
    batch: RecordedBatch
    function: bytes
    about: bytes
    packed: bytes | list[str] | None
    result_key: str
    input_keys: tuple[Any, ...]
    preview: str

    @property
    def has_call(self) -> bool:
        """Whether function and arguments were recorded."""
        return bool(self.function) and self.packed is not None


@dataclass
class CallLog:
    """All that a run's call log contains.

    Attributes
    ----------
    tasks : dict
        Key -> task, in the order of submission; of a key that was submitted again, the last.
    members : dict
        Name of a batch -> the keys of its futures, in the order of the call.
    torn : int
        Files that end within an entry, or are damaged from some place on.
    """

    folder: Path
    tasks: dict[Any, RecordedTask] = field(default_factory=dict)
    members: dict[str, list[Any]] = field(default_factory=dict)
    torn: int = 0
    _contents: dict[str, bytes] = field(default_factory=dict)

    def load_call(self, task: RecordedTask, result_key: str) -> Call | None:
        """Return the call of a task, to be stored under a key, or None if the log lacks it."""
        if not task.has_call or task.packed is None:
            return None
        if isinstance(task.packed, bytes):
            return Call(task.function, task.packed, result_key, about=task.about)
        parts = [self._content(digest) for digest in task.packed]
        if not all(parts):
            return None
        return Call(task.function, parts[0], result_key, tuple(parts[1:]), task.about)

    def _content(self, digest: str) -> bytes:
        """Return a large part of calls; empty if the file is missing or damaged."""
        part = self._contents.get(digest)
        if part is None:
            path = self.folder / CONTENT_FOLDER / digest
            part = path.read_bytes() if path.exists() else b""
            is_whole = hashlib.sha256(part).hexdigest() == digest
            self._contents[digest] = part = part if is_whole else b""
        return part


def read_call_log(folder: Path) -> CallLog:
    """Read what all clients of a run have recorded.

    Raises
    ------
    RunFolderError
        When the folder is not private: what is in it would be run.
    """
    log = CallLog(folder)
    if not folder.is_dir():
        return log
    private_folder(folder)
    functions: dict[str, tuple[bytes, bytes]] = {}
    batches: dict[str, tuple[RecordedBatch, tuple[bytes, bytes]]] = {}
    chunks: list[dict[str, Any]] = []
    members: list[dict[str, Any]] = []
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        for entry in _entries(path.read_bytes(), log):
            if entry["kind"] == "function":
                functions[entry["digest"]] = entry["function"], entry.get("about", b"")
            elif entry["kind"] == "batch":
                batch = RecordedBatch(**entry["values"])
                batches[batch.batch_id] = batch, functions.get(entry["function"], (b"", b""))
            else:
                (chunks if entry["kind"] == "calls" else members).append(entry)
    for chunk in sorted(chunks, key=lambda each: batches[each["batch"]][0].at):
        for task in _tasks(chunk, *batches[chunk["batch"]]):
            log.tasks.pop(task.key, None)  # its place is that of the last submission
            log.tasks[task.key] = task
    for entry in sorted(members, key=lambda each: each["at"]):
        log.members.pop(entry["name"], None)
        log.members[entry["name"]] = entry["keys"]
    return log


def _tasks(
    chunk: dict[str, Any], batch: RecordedBatch, recorded: tuple[bytes, bytes]
) -> Iterator[RecordedTask]:
    names = ("keys", "arguments", "result_keys", "input_keys", "previews")
    for key, *values in zip(*(chunk[name] for name in names), strict=True):
        yield RecordedTask(key, batch, *recorded, *values)


def pack_entry(kind: str, **values: Any) -> bytes:
    """Return an entry of the call log, framed."""
    data = pickle.dumps({"kind": kind, **values}, protocol=pickle.HIGHEST_PROTOCOL)
    return _FRAME.pack(_MARK, len(data), crc32(data)) + data


def _entries(data: bytes, log: CallLog) -> Iterator[dict[str, Any]]:
    position = 0
    while position < len(data):
        start = position + _FRAME.size
        mark, length, checksum = b"", 0, 0
        if start <= len(data):
            mark, length, checksum = _FRAME.unpack_from(data, position)
        body = data[start : start + length]
        if mark != _MARK or len(body) < length or crc32(body) != checksum:
            log.torn += 1
            return
        yield pickle.loads(body)
        position = start + length
