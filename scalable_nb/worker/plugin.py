"""The plugin that prepares a worker process for its session."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any, Final

from distributed import Worker
from distributed.diagnostics.plugin import WorkerPlugin

from scalable_nb.dask_adapter import compatibility
from scalable_nb.dask_adapter.access import confine
from scalable_nb.dask_adapter.connection_gate import limit_handshakes
from scalable_nb.dask_adapter.worker_hooks import (
    register_stream_handler,
    send_to_scheduler,
    will_start,
)
from scalable_nb.protocol.messages import RevocationAnswer, RevocationQuery
from scalable_nb.protocol.operations import PEAK_METRIC, Operation
from scalable_nb.protocol.version import ProtocolVersion
from scalable_nb.protocol.wire import receiving, stream_message
from scalable_nb.signing import adopt_key
from scalable_nb.worker.attempt_registry import REGISTRY_VARIABLE, Owner, read_attempts, write_owner
from scalable_nb.worker.module_finder import own_module_finder
from scalable_nb.worker.peak_memory import peak_memory_bytes
from scalable_nb.worker.process_log import write_to_log

#: Set where the nanny decides what SIGTERM means.
TERM_VARIABLE: Final = "SCALABLE_NB_NANNY_HEEDS_TERM"

_LOOK_INTERVAL_S: Final = 0.02


class ScalableWorkerPlugin(WorkerPlugin):
    """Gives workers the notebook's working directory and import path, and hides their pages.

    Parameters
    ----------
    cwd : str
        The notebook's working directory.
    python_path : list of str
        Its ``sys.path``; what a worker lacks is appended, so that nothing of the user's can
        stand before what the worker itself needs.
    http_prefix : str
        Under which the worker's HTTP pages answer.
    secret : bytes
        Of the session's key for signatures. Workers get it with the plugin, over TLS.
    """

    name = "scalable-worker-plugin"

    def __init__(self, cwd: str, python_path: list[str], http_prefix: str, secret: bytes) -> None:
        self.cwd = cwd
        self.python_path = python_path
        self.http_prefix = http_prefix
        self._secret = secret

    def setup(self, worker: Worker) -> None:
        """Called by Dask in each worker process before it gets tasks."""
        compatibility.check()
        adopt_key(self._secret)
        # A group of its own, so that the nanny can end what the tasks have started with it.
        os.setpgid(0, 0)
        write_to_log()
        registry = os.environ.get(REGISTRY_VARIABLE)
        if registry:
            write_owner(Path(registry), Owner(os.getpid(), worker.address))
        answer_revocations(worker, Path(registry or os.devnull))
        worker.metrics[PEAK_METRIC] = peak_memory_bytes
        if os.environ.get(TERM_VARIABLE):
            # A batch system sends SIGTERM to all processes of a job; the nanny's answer to it is
            # to let the tasks finish. A handler, not SIG_IGN, which programs started by a task
            # would inherit.
            signal.signal(signal.SIGTERM, lambda number, frame: None)
        limit_handshakes(worker)
        confine(worker, self.http_prefix)
        own_module_finder()
        sys.path += [entry for entry in self.python_path if entry not in sys.path]
        os.chdir(self.cwd)

    def teardown(self, worker: Any) -> None:
        """Nothing to undo: the process ends."""


def announce_version(worker: Any) -> dict[str, Any]:
    """Return the version that a worker announces; called by Dask when it registers."""
    return ProtocolVersion.own().to_wire()


def answer_revocations(worker: Worker, registry: Path) -> None:
    """Let a worker answer revocation queries; called in its process before it gets tasks."""

    def handle(sender: str, query: RevocationQuery) -> None:
        # Not awaited by the stream, on which other messages follow.
        worker.loop.add_callback(_answer, worker, registry, query)

    register_stream_handler(worker, Operation.QUERY_REVOKED, receiving(RevocationQuery, handle))


async def _answer(worker: Worker, registry: Path, query: RevocationQuery) -> None:
    key, run_id = query.key, query.run_id
    while True:
        attempt = {each.run_id: each for each in read_attempts(registry)}.get(run_id)
        if attempt is not None:
            is_known = bool(attempt.ended_at) or not query.until_ended
        else:
            # A thread that was given the task registers it in a moment, whatever is wanted now.
            is_known = not will_start(worker, key, run_id)
        if is_known:
            break
        await asyncio.sleep(_LOOK_INTERVAL_S)
    span = (attempt.started_at, attempt.ended_at or None) if attempt else None
    answer = RevocationAnswer(key, run_id, span)
    send_to_scheduler(worker, stream_message(Operation.ANSWER_REVOKED, answer))
