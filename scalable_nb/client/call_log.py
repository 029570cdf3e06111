"""The call log: functions and arguments of the tasks of a run, to call them again.

The client writes it before a task becomes runnable; it is read when kernel and host are gone.
Each client appends frames to a separate file in ``calls/`` (see `protocol.call_frames`). The
``kind`` of a frame is function, batch (a submission), calls, members (a batch) or generation.

A function is written once, arguments in one entry per submission, and large parts once per
content, in ``calls/content/<SHA-256>``. Batches and their generations have separate entries; see
`batch_records`. After a SIGKILL, all complete entries can be read, and a damaged entry affects no
other. Reading a log runs no code: functions and arguments stay bytes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from scalable_nb.client.batch_records import (
    BatchHistory,
    BatchRecord,
    changed_keys,
    legacy_batch_id,
    read_key,
    read_keys,
)
from scalable_nb.client.user_code.kernel_sources import remember_sources
from scalable_nb.errors import RunFolderError
from scalable_nb.paths import private_folder, write_private
from scalable_nb.protocol.call import Call
from scalable_nb.protocol.call_frames import Place, pack_frame, read_frames
from scalable_nb.signing import own_key
from scalable_nb.trusted_paths import open_regular

SUFFIX: Final = ".calls"
CONTENT_FOLDER: Final = "content"
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_CORRECTED_KEY: Final = re.compile(r".+-[0-9a-f]{32}-\d+")


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
    is_submit : bool or None
        Whether it is one `submit`, and so a batch of one; None if an earlier version wrote it.
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
    is_submit: bool | None = None


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
    modules : (str, bytes)
        Digest and sources of the modules that the call may import; empty for none.
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
    modules: tuple[str, bytes]
    packed: bytes | list[str] | None
    result_key: str
    input_keys: tuple[Any, ...]
    preview: str

    @property
    def has_call(self) -> bool:
        """Whether function and arguments were recorded."""
        return bool(self.function) and self.packed is not None

    def is_same_call(self, other: RecordedTask) -> bool:
        """Return whether function, arguments and inputs are recorded, and equal."""
        return (
            self.has_call
            and self.function == other.function
            and self.modules == other.modules
            and self.packed == other.packed
            and self.input_keys == other.input_keys
        )


@dataclass
class CallLog:
    """All that a run's call log contains.

    Attributes
    ----------
    tasks : dict
        Key -> task, in the order of submission; of a key that was submitted again, the last.
    earlier : dict
        Key -> earlier recordings of the very same call, whose results may be stored.
    history : BatchHistory
        The batches.
    torn : int
        Places where entries are damaged, or a file ends within one.
    unsigned : int
        Entries that are not signed with the user's key for this run.
    """

    folder: Path
    tasks: dict[Any, RecordedTask] = field(default_factory=dict)
    earlier: dict[Any, list[RecordedTask]] = field(default_factory=dict)
    history: BatchHistory = field(default_factory=BatchHistory)
    torn: int = 0
    unsigned: int = 0
    _contents: dict[str, bytes] = field(default_factory=dict)

    def require_signed(self) -> None:
        """Refuse calls that the user's processes did not record.

        Raises
        ------
        RunFolderError
            Names the run and what signs it.
        """
        if self.unsigned:
            raise RunFolderError(unsigned_run(self.folder.parent))

    def add(self, task: RecordedTask) -> None:
        """Add a task; its place is that of its last submission."""
        before = self.tasks.pop(task.key, None)
        self.tasks[task.key] = task
        if before is None:
            return
        if before.is_same_call(task):
            self.earlier.setdefault(task.key, []).append(before)
        else:
            self.earlier.pop(task.key, None)

    def inputs_of(self, key: Any) -> tuple[Any, ...]:
        """Return the keys of the tasks whose results a task takes, corrected ones by now."""
        task = self.tasks.get(key)
        return tuple(map(self.history.current, task.input_keys)) if task is not None else ()

    def with_inputs(self, keys: Iterable[Any]) -> list[Any]:
        """Return tasks and all recorded tasks whose results they need, inputs first."""
        found: dict[Any, None] = {}
        visited: set[Any] = set()
        stack = list(keys)[::-1]
        while stack:
            key = stack.pop()
            if key in visited:
                found.setdefault(key)  # all its inputs have been found
                continue
            visited.add(key)
            stack.append(key)
            inputs = [each for each in self.inputs_of(key) if each in self.tasks]
            stack += [each for each in inputs[::-1] if each not in visited]
        return list(found)

    def load_call(self, task: RecordedTask, result_key: str) -> Call | None:
        """Return the call of a task, to be stored under a key, or None if the log lacks it."""
        if not task.has_call or task.packed is None:
            return None
        digest, sources = task.modules
        if not self.unsigned:
            remember_sources(digest, sources)
        if isinstance(task.packed, bytes):
            return Call(task.function, task.packed, result_key, about=task.about, modules=digest)
        parts = [self._content(digest) for digest in task.packed]
        if not all(parts):
            return None
        return Call(task.function, parts[0], result_key, tuple(parts[1:]), task.about, digest)

    def _content(self, digest: str) -> bytes:
        """Return a large part of calls; empty if the file is missing or damaged."""
        part = self._contents.get(digest)
        if part is None:
            path = self.folder / CONTENT_FOLDER / digest
            is_there = _DIGEST.fullmatch(digest) is not None and path.exists()
            part = _content_of(path) if is_there else b""
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
    reader = _Reader(log)
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        reader.read(path)
    reader.finish()
    return log


class _Function(NamedTuple):
    """A recorded function."""

    pickled: bytes = b""
    about: bytes = b""
    modules: tuple[str, bytes] = ("", b"")


class _Reader:
    """Collects the entries of all files, and puts them in order."""

    def __init__(self, log: CallLog) -> None:
        self._log = log
        self._functions: dict[str, _Function] = {}
        self._submissions: dict[str, tuple[RecordedBatch, str, str]] = {}
        self._chunks: list[dict[str, Any]] = []
        self._batches: list[tuple[float, BatchRecord]] = []
        self._generations: list[tuple[float, tuple[str, int, dict[int, Any]]]] = []

    def read(self, path: Path) -> None:
        """Read one file."""
        log = self._log
        for frame in read_frames(_content_of(path), place_of(path)):
            log.unsigned += not frame.is_signed and frame.values is not None
            if frame.values is None or not self._take(frame.values, path.stem):
                log.torn += 1

    def _take(self, entry: dict[str, Any], kernel: str) -> bool:
        """Take an entry; return whether it has the values of its kind."""
        try:
            kind = entry["kind"]
            if kind == "function":
                modules = entry.get("modules", ""), entry.get("sources", b"")
                function = _Function(entry["function"], entry.get("about", b""), modules)
                self._functions[entry["digest"]] = function
            elif kind == "batch":
                submission = RecordedBatch(**entry["values"])
                self._submissions[submission.batch_id] = submission, entry["function"], kernel
            elif kind == "calls":
                self._chunks.append(_with_keys(entry))
            elif kind == "generation":
                keys = {int(i): read_key(key) for i, key in entry["keys"].items()}
                generation = entry["batch"], int(entry["number"]), keys
                self._generations.append((float(entry["at"]), generation))
            elif kind == "members":
                self._batches.append(_batch(entry, kernel))
        except (KeyError, TypeError, ValueError, AttributeError):
            return False
        return True

    def finish(self) -> None:
        """Fill the log."""
        # Of a damaged file, the entry that calls refer to may be missing.
        chunks = [each for each in self._chunks if each["batch"] in self._submissions]
        chunks.sort(key=lambda each: self._submissions[each["batch"]][0].at)
        for chunk in chunks:
            submission, digest, _ = self._submissions[chunk["batch"]]
            for task in _tasks(chunk, submission, self._functions.get(digest, _Function())):
                self._log.add(task)
        history = self._log.history
        corrected = self._corrected_calls()
        taken = {key for new in corrected for key in new.values()}
        for record in self._single_calls(chunks):
            if taken.isdisjoint(record.keys):
                history.add(record)
        for _, record in sorted(self._batches, key=lambda each: each[0]):
            history.add(record)
        for new in corrected:
            for record, keys in list(changed_keys(history, (), new)):
                history.add_generation(record.batch_id, record.generation + 1, keys)
        for _, generation in sorted(self._generations, key=lambda each: each[0]):
            history.add_generation(*generation)
        history.sort()

    def _corrected_calls(self) -> list[dict[Any, Any]]:
        if all(each.is_submit is not None for each, _, _ in self._submissions.values()):
            return []  # this version has recorded them as generations
        return find_corrected(self._log.tasks.values())

    def _single_calls(self, chunks: list[dict[str, Any]]) -> Iterator[BatchRecord]:
        """Yield the batches that have no entry of their own."""
        listed = {key for _, record in self._batches for key in record.keys}
        names = {record.name for _, record in self._batches}
        for chunk in chunks:
            submission, _, kernel = self._submissions[chunk["batch"]]
            is_submit = submission.is_submit
            if is_submit is None:  # written before batches had ids
                is_submit = not submission.name and listed.isdisjoint(chunk["keys"])
                if submission.name and submission.name not in names:
                    # The kernel was killed before it recorded which batch these calls are.
                    yield _without_entry(submission, kernel, chunk["keys"], is_single=False)
            if is_submit:
                for key in chunk["keys"]:
                    yield _without_entry(submission, kernel, [key], is_single=True)


def find_corrected(tasks: Iterable[RecordedTask]) -> list[dict[Any, Any]]:
    """Return what resubmissions with corrected code replaced, as earlier versions recorded them.

    Before batches had ids, calls of `func=` were further calls of the batch's name, with the
    recorded arguments of the calls that they replaced, and with keys of a form of their own.

    Parameters
    ----------
    tasks : iterable of RecordedTask
        In the order of their submission.

    Returns
    -------
    list of dict
        Of each resubmission, key of a replaced task -> key of the task that took its place.
    """
    earlier: dict[Any, list[RecordedTask]] = {}
    found: dict[str, dict[Any, Any]] = {}
    for task in tasks:
        batch = task.batch
        packed = tuple(task.packed) if isinstance(task.packed, list) else task.packed
        alike = earlier.setdefault((batch.name, packed, task.input_keys), [])
        if batch.is_submit is None and task.has_call and _CORRECTED_KEY.fullmatch(str(task.key)):
            of_function = [e for e in alike if e.batch.function_name == batch.function_name]
            replaced = of_function or alike
            if len(replaced) == 1:
                found.setdefault(batch.batch_id, {})[replaced[0].key] = task.key
                alike.remove(replaced[0])
        alike.append(task)
    return list(found.values())


def _without_entry(
    submission: RecordedBatch, kernel: str, keys: list[Any], *, is_single: bool
) -> BatchRecord:
    batch_id = submission.batch_id
    if submission.is_submit is None:
        batch_id = legacy_batch_id(kernel, f"{batch_id} {keys[0]}", submission.at)
    return BatchRecord(
        batch_id=batch_id,
        name=submission.task if is_single else submission.name,
        function_name=submission.function_name,
        at=submission.at,
        kernel=kernel,
        keys=list(keys),
        is_single=is_single,
    )


def _batch(entry: dict[str, Any], kernel: str) -> tuple[float, BatchRecord]:
    """Return the time at which a batch was recorded, and its record."""
    name, at = entry.get("name", ""), entry["at"]
    if "values" in entry:
        return at, BatchRecord.from_entry(entry["values"])
    batch_id = legacy_batch_id(kernel, name, at)
    return at, BatchRecord(batch_id, name, name, at, kernel, read_keys(entry["keys"]))


_COLUMNS: Final = ("keys", "arguments", "result_keys", "input_keys", "previews")


def _with_keys(chunk: dict[str, Any]) -> dict[str, Any]:
    columns = {name: chunk[name] for name in _COLUMNS}
    if len(set(map(len, columns.values()))) != 1:
        raise ValueError("columns of different lengths")
    inputs = [tuple(read_keys(each)) if each else () for each in chunk["input_keys"]]
    keys = read_keys(chunk["keys"])
    frozenset(keys)  # refuse values that are not hashable
    return {**chunk, "keys": keys, "input_keys": inputs}


def _tasks(
    chunk: dict[str, Any], batch: RecordedBatch, recorded: _Function
) -> Iterator[RecordedTask]:
    for key, *values in zip(*(chunk[name] for name in _COLUMNS), strict=True):
        yield RecordedTask(key, batch, *recorded, *values)


def _content_of(path: Path) -> bytes:
    with open_regular(path) as file:
        return file.read()


def place_of(path: Path) -> Place:
    """Return the place that the frames of a file of the log are signed for."""
    return Place(path.parent.parent.name, path.name)


def unsigned_run(folder: Path) -> str:
    """Return the text of the error for a run that is not signed with the user's key."""
    return (
        f"run {folder.name} is not signed with your key: it is from elsewhere, from another home "
        "folder or from an earlier version, and its code would run with your rights. If you "
        f"trust its author: `%scalable resubmit --run {folder.name} --trust`, or "
        f"resubmit(run={folder.name!r}, trust=True)"
    )


def sign_call_log(folder: Path) -> None:
    """Write all entries of a log again, signed with the user's key; damaged ones are left out."""
    key = own_key()
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        place = place_of(path)
        frames = list(read_frames(_content_of(path), place))
        if all(frame.is_signed for frame in frames):
            continue
        signed = bytearray()
        for frame in frames:
            if frame.values is not None:
                signed += pack_frame(frame.values, place, len(signed), key)
        write_private(path, bytes(signed))
