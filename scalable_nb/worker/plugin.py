"""Makes every worker feel at home in the notebook's folder."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import sys
from pathlib import Path
from typing import Any, Final

from distributed import Worker
from distributed.diagnostics.plugin import WorkerPlugin

from scalable_nb.dask_adapter import compatibility
from scalable_nb.dask_adapter.access import confine
from scalable_nb.dask_adapter.worker_hooks import (
    register_stream_handler,
    send_to_scheduler,
    will_start,
)
from scalable_nb.protocol.operations import PEAK_METRIC, REVOCATION_ANSWER, REVOCATION_QUERY
from scalable_nb.worker.attempt_registry import SLOTS_VARIABLE, Owner, note_owner, read_noted
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
    """

    name = "scalable-workspace"

    def __init__(self, cwd: str, python_path: list[str], http_prefix: str) -> None:
        self.cwd = cwd
        self.python_path = python_path
        self.http_prefix = http_prefix

    def setup(self, worker: Worker) -> None:
        """Called by Dask in each worker process before it gets tasks."""
        compatibility.check()
        # A group of its own, so that the nanny can end what the tasks have started with it.
        os.setpgid(0, 0)
        write_to_log()
        slots = os.environ.get(SLOTS_VARIABLE)
        if slots:
            note_owner(Path(slots), Owner(os.getpid(), worker.address))
        answer_revocations(worker, Path(slots or os.devnull))
        worker.metrics[PEAK_METRIC] = peak_memory_bytes
        if os.environ.get(TERM_VARIABLE):
            # A batch system sends SIGTERM to all processes of a job; the nanny's answer to it is
            # to let the tasks finish. A handler, not SIG_IGN, which programs started by a task
            # would inherit.
            signal.signal(signal.SIGTERM, lambda number, frame: None)
        confine(worker, self.http_prefix)
        sys.path += [entry for entry in self.python_path if entry not in sys.path]
        os.chdir(self.cwd)

    def teardown(self, worker: Any) -> None:
        """Nothing to undo: the process ends."""


def answer_revocations(worker: Worker, slots: Path) -> None:
    """Have a worker answer; called in its process before it gets tasks."""

    def handle(**question: Any) -> None:
        # Not awaited by the stream, on which other messages follow.
        worker.loop.add_callback(functools.partial(_answer, worker, slots, **question))

    register_stream_handler(worker, REVOCATION_QUERY, handle)


async def _answer(worker: Worker, slots: Path, key: Any, run_id: int, until_ended: bool) -> None:
    while True:
        noted = {attempt.run_id: attempt for attempt in read_noted(slots)}.get(run_id)
        if noted is not None:
            is_known = bool(noted.ended_at) or not until_ended
        else:
            # A thread that was given the task notes it in a moment, whatever is wanted now.
            is_known = not will_start(worker, key, run_id)
        if is_known:
            break
        await asyncio.sleep(_LOOK_INTERVAL_S)
    span = (noted.started_at, noted.ended_at or None) if noted else None
    answer = {"op": REVOCATION_ANSWER, "key": key, "run_id": run_id, "span": span}
    send_to_scheduler(worker, answer)
