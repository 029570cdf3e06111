"""Write the calls that a client submits into its run's call log."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from time import time
from typing import Any, Final

from scalable_nb.client.batch_records import BatchRecord
from scalable_nb.client.call_log import (
    CONTENT_FOLDER,
    SUFFIX,
    RecordedBatch,
    RecordedCall,
    place_of,
)
from scalable_nb.client.submission import PackedCall, Submission, recorded_calls
from scalable_nb.client.user_code.kernel_sources import packed_sources
from scalable_nb.paths import appending, private_folder, write_private
from scalable_nb.protocol.call import LARGE_BYTES, Call
from scalable_nb.protocol.call_frames import pack_frame
from scalable_nb.signing import own_key

logger = logging.getLogger(__name__)

_CALLS_PER_ENTRY: Final = 1000
_CANNOT_WRITE: Final = "the calls cannot be written into the run folder: {}"


class CallLogWriter:
    """Writes one client's part of a run's call log.

    Parameters
    ----------
    folder : Path
        ``calls/`` of the run.
    name : str
        Names the file; no two writers have the same.
    limit_bytes : int
        Of arguments in the whole log; what would exceed it is left out.
    """

    def __init__(self, folder: Path, name: str, limit_bytes: int) -> None:
        self.name = name
        self._folder = folder
        self._path = folder / f"{name}{SUFFIX}"
        self._place = place_of(self._path)
        self._signing_key = own_key()
        self._limit_bytes = limit_bytes
        self._descriptor = -1
        self._functions: set[str] = set()
        self._reported: set[str] = set()
        self._lock = threading.Lock()
        self.nbytes = 0

    # --- what a client submits: trouble is reported once, and fails no call --------------

    def log_calls(self, submission: Submission, packed: Mapping[Any, PackedCall]) -> None:
        """Record calls before any of them becomes runnable."""
        try:
            left_out = self.write_calls(
                submission.recorded(time()),
                recorded_calls(packed),
                record_args=submission.record_args,
            )
        except OSError as error:
            self._warn_once("failed", _CANNOT_WRITE.format(error))
            return
        if left_out:
            self._warn_once(
                "limit",
                f"the recorded arguments of this session reached {self._limit_bytes / 1e9:.3g} GB "
                "(`record_limit:` under `defaults:` of scalable.yaml): those of "
                f"{left_out:,} calls and of further ones are left out",
            )

    def log_batches(self, records: Sequence[BatchRecord], *, is_durable: bool = True) -> None:
        """Record batches; wait for the disk if they are to be durable."""
        try:
            self.write_batches(records, is_durable=is_durable)
        except OSError as error:
            self._warn_once("failed", _CANNOT_WRITE.format(error))

    def log_generation(self, batch_id: str, number: int, keys: Mapping[int, Any]) -> None:
        """Record which inputs of a batch run again, and the keys of their tasks."""
        try:
            self.write_generation(batch_id, number, keys)
        except OSError as error:
            self._warn_once("failed", _CANNOT_WRITE.format(error))

    # --- the file ----------------------------------------------------------------------

    def write_calls(
        self,
        batch: RecordedBatch,
        calls: Iterable[RecordedCall],
        *,
        record_args: bool = True,
    ) -> int:
        """Record the calls of a batch and return how many had no room for their arguments.

        Raises
        ------
        OSError
            When the disk refuses. What was recorded before stays readable.
        """
        with self._lock:
            left_out = 0
            rest = iter(calls)
            chunk = list(islice(rest, _CALLS_PER_ENTRY))
            first = chunk[0].call  # what is known of the function is the same for all of them
            digest = hashlib.sha256(first.function + first.modules.encode()).hexdigest()
            with self._appending() as append:
                if record_args and digest not in self._functions:
                    append({"kind": "function", "digest": digest, **_function_values(first)})
                    self.nbytes += len(first.function)
                append({"kind": "batch", "values": vars(batch), "function": digest})
                while chunk:
                    packed = [self._arguments(each.call, record_args) for each in chunk]
                    left_out += packed.count(None) if record_args else 0
                    append(
                        {
                            "kind": "calls",
                            "batch": batch.batch_id,
                            "keys": [each.key for each in chunk],
                            "arguments": packed,
                            "result_keys": [each.call.result_key for each in chunk],
                            "input_keys": [each.input_keys for each in chunk],
                            "previews": [each.preview for each in chunk],
                        }
                    )
                    chunk = list(islice(rest, _CALLS_PER_ENTRY))
            if record_args:
                self._functions.add(digest)
        return left_out

    def write_batches(self, records: Sequence[BatchRecord], *, is_durable: bool = True) -> None:
        """Record batches, in order; a later record of a batch replaces an earlier one.

        Raises
        ------
        OSError
            When the disk refuses.
        """
        entries = [
            {"kind": "members", "at": time(), "values": record.to_entry()} for record in records
        ]
        self._append_entries(entries, is_durable=is_durable)

    def write_generation(self, batch_id: str, number: int, keys: Mapping[int, Any]) -> None:
        """Record a generation of a batch: index of an input -> key of its task from now on.

        Raises
        ------
        OSError
            When the disk refuses.
        """
        entry = {"kind": "generation", "at": time(), "batch": batch_id, "number": number}
        self._append_entries([{**entry, "keys": dict(keys)}], is_durable=True)

    def _append_entries(self, entries: Sequence[Mapping[str, Any]], *, is_durable: bool) -> None:
        with self._lock:
            with self._appending() as append:
                for entry in entries:
                    append(entry)
            if is_durable:
                os.fdatasync(self._descriptor)  # a whole batch may wait for the disk once

    def close(self) -> None:
        """Close the file; closing twice is harmless."""
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1

    # --- internals -------------------------------------------------------------------

    def _warn_once(self, kind: str, message: str) -> None:
        if kind not in self._reported:
            self._reported.add(kind)
            logger.warning(
                "%s. They run all the same; only `%%scalable resubmit --last`, when kernel and "
                "host are gone, will not have them.",
                message,
            )

    def _arguments(self, call: Call, record_args: bool) -> Any:
        """Return the arguments as recorded: bytes, or digests of contents; None if left out."""
        nbytes = len(call.arguments)
        if not record_args or self.nbytes + nbytes > self._limit_bytes:
            return None
        if not call.buffers and nbytes < LARGE_BYTES:
            self.nbytes += nbytes
            return call.arguments
        parts = [call.arguments, *call.buffers]
        digests = [self._store_content(part) for part in parts]
        return None if None in digests else digests

    def _store_content(self, part: bytes) -> str | None:
        digest = hashlib.sha256(part).hexdigest()
        path = self._folder / CONTENT_FOLDER / digest
        if not path.exists():
            if self.nbytes + len(part) > self._limit_bytes:
                return None
            private_folder(path.parent)
            write_private(path, part)
            self.nbytes += len(part)
        return digest

    @contextmanager
    def _appending(self) -> Iterator[Callable[[Mapping[str, Any]], None]]:
        """Yield a function that appends an entry. If it fails, no entry of the block is kept."""
        if self._descriptor < 0:
            private_folder(self._folder)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            self._descriptor = os.open(self._path, flags, 0o600)
        place, key = self._place, self._signing_key
        position = os.lseek(self._descriptor, 0, os.SEEK_END)
        with appending(self._descriptor) as append:  # half an entry would hide all that follow

            def append_entry(values: Mapping[str, Any]) -> None:
                nonlocal position
                frame = pack_frame(values, place, position, key)
                append(frame)
                position += len(frame)

            yield append_entry


def _function_values(call: Call) -> dict[str, Any]:
    values: dict[str, Any] = {"function": call.function, "about": call.about}
    if call.modules:
        values |= {"modules": call.modules, "sources": packed_sources(call.modules)}
    return values
