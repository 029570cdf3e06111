"""Keeps a session's call record up to date; trouble with it is told once and fails no call."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from time import time
from typing import Any

from scalable_nb.client.call_log import CallRecorder
from scalable_nb.client.submission import PackedCall, Submission, recorded_calls
from scalable_nb.paths import RunPaths

logger = logging.getLogger(__name__)


class Recording:
    """What one client of a run submits, as it is written down.

    Parameters
    ----------
    paths : RunPaths
    writer : str
        Names the client.
    limit_bytes : int
        Of its arguments.
    """

    def __init__(self, paths: RunPaths, writer: str, limit_bytes: int) -> None:
        self._recorder = CallRecorder(paths.calls, writer, limit_bytes)
        self._limit_bytes = limit_bytes
        self._told: set[str] = set()

    def calls(self, submission: Submission, packed: Mapping[Any, PackedCall]) -> None:
        """Record calls before any of them becomes runnable."""
        try:
            left_out = self._recorder.write(
                submission.recorded(time()),
                recorded_calls(packed),
                record_args=submission.record_args,
            )
        except OSError as error:
            self._tell("failed", f"the calls cannot be written into the run folder: {error}")
            return
        if left_out:
            self._tell(
                "limit",
                f"the recorded arguments of this session reached {self._limit_bytes / 1e9:.3g} GB "
                "(`record_limit:` under `defaults:` of scalable.yaml): those of "
                f"{left_out:,} calls and of further ones are left out",
            )

    def members(self, name: str, keys: Sequence[Any]) -> None:
        """Record which futures a batch has, in order."""
        try:
            self._recorder.write_members(name, keys)
        except OSError as error:
            self._tell("failed", f"the calls cannot be written into the run folder: {error}")

    def close(self) -> None:
        """Close the file."""
        self._recorder.close()

    def _tell(self, what: str, message: str) -> None:
        if what not in self._told:
            self._told.add(what)
            logger.warning(
                "%s. They run all the same; only `%%scalable resubmit --last`, when kernel and "
                "host are gone, will not have them.",
                message,
            )
