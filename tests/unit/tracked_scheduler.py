"""A real scheduler with the host's parts, driven by hand: no network, no worker processes.

What a worker process, its nanny and a client would send arrives through the same handlers as
from them. Only the connections are stand-ins: what the scheduler sends into them is not read.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import tempfile
import traceback
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from time import time
from types import SimpleNamespace
from typing import Any

from dask._task_spec import Task, TaskRef
from distributed import Scheduler
from distributed.comm import CommClosedError
from distributed.scheduler import ClientState

from scalable_nb.faults.decision import PolicyTerms
from scalable_nb.host.composition import HostParts, compose
from scalable_nb.host.tasks.run_recorder import RunRecorder
from scalable_nb.host.workers.demand import DesiredWorkers
from scalable_nb.host.workers.replacement import ReplacementLimits
from scalable_nb.paths import RunPaths
from scalable_nb.protocol.annotations import ANNOTATION
from scalable_nb.protocol.call import registered_name
from scalable_nb.protocol.exit_report import ExitCause, ExitReport, Span
from scalable_nb.protocol.messages import (
    AttemptExpired,
    AttemptFailed,
    BatchMessage,
    ErrorReport,
    JoinRequest,
    RevocationAnswer,
    WorkerExited,
)
from scalable_nb.protocol.operations import Operation
from scalable_nb.protocol.version import ANNOUNCEMENT, ProtocolVersion
from scalable_nb.protocol.wire import Message, stream_message
from scalable_nb.targets.fleet import Fleet, WorkerGroup, WorkerKind
from scalable_nb.telemetry.journal_reader import read_rows

CLIENT = "client-of-the-test"
_IDLE = {
    "bandwidth": {"total": 1e8, "workers": {}, "types": {}},
    "event_loop_interval": 0.02,
    "memory": 0,
    "spilled_bytes": {"memory": 0, "disk": 0},
    "managed_bytes": 0,
    "host_net_io": {"read_bps": 0, "write_bps": 0},
    "digests_total_since_heartbeat": {},
}
_LOGGERS = ("distributed.scheduler", "distributed.utils", "distributed.core", "asyncio")


class _NoFleet(Fleet):
    """Starts no workers: they come and go as a test says."""

    def __init__(self, scheduler: Scheduler) -> None:
        cluster: Any = SimpleNamespace(scheduler=scheduler, worker_spec={}, workers={})
        super().__init__(cluster, [WorkerKind("", {})])

    def how_ended(self, entry: WorkerGroup) -> str | None:
        return None


def compose_host(
    scheduler: Scheduler, paths: RunPaths, *, max_identical_failures: int = 0
) -> HostParts:
    """The parts of a host of a local target around a scheduler."""
    return compose(
        _NoFleet(scheduler),
        RunRecorder(paths, "local"),
        paths.results,
        desired_at_start={"": DesiredWorkers(0)},
        replacement_limits=ReplacementLimits(None, None, None, {}),
        max_identical_failures=max_identical_failures,
    )


class _Mishaps(logging.Handler):
    """Collects what Dask caught in a plugin and only logged."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == "asyncio" and "never retrieved" in record.getMessage():
            return  # said when rubbish is collected, of whatever was there before
        if record.exc_info and record.exc_info[0] is not None:
            self.found.append("".join(traceback.format_exception(*record.exc_info)))


class _Mailbox:
    """The connection to a client, which is sent messages only."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send(self, *messages: Any) -> None:
        self.sent += messages

    def abort(self) -> None:
        """Nothing is open."""


class _Line:
    """A connection on which the other end says nothing."""

    name = ""
    local_address = peer_address = "inproc://test/1"

    def __init__(self) -> None:
        self._closed = asyncio.Event()
        self.sent: list[Any] = []

    async def write(self, msg: Any, **kwargs: Any) -> int:
        self.sent += msg if isinstance(msg, list) else [msg]
        return 0

    async def read(self, **kwargs: Any) -> Any:
        await self._closed.wait()
        raise CommClosedError

    def closed(self) -> bool:
        return self._closed.is_set()

    async def close(self) -> None:
        self._closed.set()

    def abort(self) -> None:
        self._closed.set()


def _spans(executing: list[int], ended: list[int]) -> dict[int, Span]:
    now = time()
    return dict.fromkeys(executing, (now, None)) | dict.fromkeys(ended, (now, now))


class SchedulerAlone:
    """A scheduler and the host's parts, and what their surroundings may do to them."""

    def __init__(self, *, threads: int = 2, breaker_limit: int = 3) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.paths = RunPaths(Path(self._folder.name) / "run-1")
        self.paths.folder.mkdir()
        self._loop = asyncio.new_event_loop()
        self._numbers = itertools.count(1)
        self._threads = threads
        self._lines: dict[str, _Line] = {}
        self.mishaps = _Mishaps()
        for name in _LOGGERS:
            logging.getLogger(name).addHandler(self.mishaps)
        self._mailboxes: dict[str, _Mailbox] = {}
        self.is_closed = False
        self._do(lambda: self._begin(breaker_limit))
        self.add_client(CLIENT)

    def _begin(self, breaker_limit: int) -> None:
        # A folder of its own: the common one has a lock, and Dask warns of who waits for it.
        self.scheduler = Scheduler(
            dashboard=False, dashboard_address="127.0.0.1:0", validate=True,
            local_directory=self._folder.name,
        )  # fmt: skip
        self.parts = compose_host(self.scheduler, self.paths, max_identical_failures=breaker_limit)
        self.recorder = self.parts.recorder

    def _do(self, step: Callable[[], Any]) -> Any:
        async def run() -> Any:
            result = step()
            result = await result if asyncio.iscoroutine(result) else result
            for _ in range(5):  # what the step asked the loop to do
                await asyncio.sleep(0)
            return result

        return self._loop.run_until_complete(run())

    def close(self) -> tuple[list[Any], list[Any]]:
        """End it; gives the rows of ``failures.jsonl`` and ``tasks.jsonl``."""
        self.is_closed = True
        self.recorder.close()
        for name in _LOGGERS:
            logging.getLogger(name).removeHandler(self.mishaps)

        async def end() -> None:
            self.scheduler.remove_plugin(self.parts.tracker.name)
            for line in self._lines.values():
                line.abort()
            await self.scheduler.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        self._loop.run_until_complete(end())
        self._loop.close()
        rows = read_rows(self.paths.failures).rows, read_rows(self.paths.tasks).rows
        self.scheduler._workdir.release()
        self._folder.cleanup()
        return rows

    # --- workers --------------------------------------------------------------------

    def add_worker(self, version: ProtocolVersion | None = None, name: str = "") -> str:
        """A worker registers, with the version that it announces (default: the host's)."""
        announced = (version or ProtocolVersion.own()).to_wire()
        number = next(self._numbers)
        address = f"tcp://127.0.0.1:{10_000 + number}"

        line = _Line()
        self._lines[address] = line

        def join() -> None:
            joining = self.scheduler.add_worker(
                line,  # type: ignore[arg-type]
                address=address, status="running", server_id=f"worker-{number}",
                name=name or number, nthreads=self._threads, resolve_address=False, now=time(),
                resources={}, memory_limit=10**9, metrics=_IDLE, services={}, local_directory="",
                versions={}, nanny="", extra={ANNOUNCEMENT: announced}, stimulus_id=f"add-{number}",
            )  # fmt: skip
            self._joining = asyncio.ensure_future(joining)

        self._do(join)
        return address

    def sent_to(self, worker: str) -> list[Any]:
        """What the scheduler has sent to a worker, or will as soon as it may."""
        return [*self._lines[worker].sent, *self.scheduler.stream_comms[worker].buffer]

    def pause(self, worker: str) -> None:
        """A worker takes no further tasks."""
        self._do(
            lambda: self.scheduler.handle_worker_status_change("paused", worker, f"pause-{time()}")
        )

    def remove_worker(self, worker: str, *, is_expected: bool = False) -> None:
        """The connection ends, or the worker is retired."""
        stimulus = "retire-workers" if is_expected else "handle-worker-cleanup"
        self._do(
            lambda: self.scheduler.remove_worker(
                worker, stimulus_id=f"{stimulus}-{time()}", expected=is_expected
            )
        )

    def report_exit(
        self,
        worker: str,
        executing: list[int],
        ended: list[int],
        cause: ExitCause = ExitCause.EXIT,
    ) -> None:
        """The nanny's word on the end of a worker process; runs of attempts."""
        report = ExitReport(cause, _spans(executing, ended), exit_code=-9)
        self.ask(Operation.WORKER_EXITED, WorkerExited(worker, report))

    def revoked(self) -> list[tuple[str, str, int]]:
        """Worker, key and run of every task that a worker is being asked about."""
        return [
            (worker, str(record.key), run_id)
            for worker, asked in self.parts.revocations._asked.items()
            for run_id, (record, _) in asked.items()
        ]

    def answer_revocation(
        self, worker: str, key: str, run_id: int, executing: list[int], ended: list[int]
    ) -> None:
        """A worker says what became of a task that was taken back from it."""
        answer = RevocationAnswer(key, run_id, _spans(executing, ended).get(run_id))
        self._send(Operation.ANSWER_REVOKED, answer, worker=worker)

    def stop_waiting_for_the_report(self, worker: str) -> None:
        """Nobody will say what became of a worker."""
        self._do(lambda: self.parts.losses._settle(worker))

    # --- clients --------------------------------------------------------------------

    def add_client(self, client: str) -> None:
        """A client connects."""

        def connect() -> None:
            self.scheduler.clients[client] = ClientState(client)
            mailbox: Any = _Mailbox()
            self._mailboxes[client] = self.scheduler.client_comms[client] = mailbox
            for plugin in self.scheduler.plugins.values():
                plugin.add_client(self.scheduler, client)

        self._do(connect)

    def remove_client(self, client: str) -> None:
        """A client closes, or its connection ends."""

        def remove() -> None:
            self.scheduler.remove_client(client)
            del self.scheduler.client_comms[client]

        self._do(remove)

    def received(self, client: str) -> list[Any]:
        """The messages that a client was sent since the last call."""
        messages, self._mailboxes[client].sent = self._mailboxes[client].sent, []
        return messages

    def submit(
        self,
        keys: list[str],
        terms: PolicyTerms,
        inputs: list[str],
        name: str,
        *,
        client: str = CLIENT,
        runs_to_end: bool = False,
        workers: Collection[str] = (),
        allow_other_workers: bool = False,
    ) -> None:
        """Submit tasks of one batch that take the results of others."""
        number = next(self._numbers)
        batch = BatchMessage(f"batch-{number}", name=name, function="f", runs_to_end=runs_to_end)
        batch = batch.with_previews(dict.fromkeys(keys, "x"))
        wire = {**terms.to_wire(), "batch": batch.batch_id}

        self._send(Operation.BATCH_SUBMITTED, batch, client=client)

        def send() -> None:
            self.scheduler._create_taskstate_from_graph(
                start=time(),
                dsk={key: Task(key, max, *map(TaskRef, inputs), 1, 2) for key in keys},
                keys=set(keys),
                ordered={key: place for place, key in enumerate(keys)},
                client=client,
                annotations_by_type={
                    ANNOTATION: dict.fromkeys(keys, wire),
                    "workers": {key: list(workers) for key in (keys if workers else ())},
                    "allow_other_workers": dict.fromkeys(keys, allow_other_workers),
                },
                global_annotations=None,
                stimulus_id=f"update-graph-{time()}",
                submitting_task=None,
                span_metadata={"collections": []},
            )

        self._do(send)

    def join(self, client: str, keys: list[str], *, is_claim: bool) -> tuple[Any, ...]:
        """A client observes or claims tasks; gives the keys of those that it cannot."""
        request = JoinRequest(next(self._numbers), tuple(keys), is_claim)
        self._send(Operation.JOIN, request, client=client)
        sent = self._mailboxes[client].sent
        (reply,) = (each for each in sent if each["op"] == Operation.JOINED)
        sent.remove(reply)
        assert reply["request_id"] == request.request_id
        return tuple(reply["unknown"])

    def release(self, keys: list[str], client: str = CLIENT) -> None:
        """A client drops its futures."""
        self._stream("client-releases-keys", keys=keys, client=client)

    def desire(self, keys: list[str], client: str) -> None:
        """A client got futures in another way than by submitting tasks."""
        self._stream("client-desires-keys", keys=keys, client=client)

    def release_all(self) -> None:
        """The host ends."""
        self._do(self.parts.leases.release_all)

    def cancel(self, keys: list[str], client: str = CLIENT, *, force: bool = False) -> None:
        self._stream("cancel-keys", keys=keys, client=client, force=force, reason="", msg=None)

    def ask(self, operation: Operation, message: Message) -> Any:
        """Call an operation as another process does; gives the reply as it arrives there."""
        return self._do(lambda: self.scheduler.handlers[operation](**message.to_wire()))

    # --- attempts -------------------------------------------------------------------

    def finish(self, key: str, worker: str, run_id: int, *, is_fetched: bool = False) -> None:
        """The worker's message that a task is done arrives.

        ``is_fetched``: it had the result already, from a worker that is gone.
        """
        span = {"action": "compute", "start": time() - 1, "stop": time()}
        self._stream(
            "task-finished", key=key, worker=worker, stimulus_id=f"finished-{time()}",
            run_id=run_id, metadata={}, nbytes=8, type=None, typename="int",
            startstops=[] if is_fetched else [span], thread=1,
        )  # fmt: skip

    def ask_about_failure(
        self, key: str, worker: str, run_id: int, category: str
    ) -> dict[str, bool]:
        """The worker asks what to do about an exception."""
        error = ErrorReport("Broken", "it broke", category, "0" * 16, time(), 0.0)
        message = AttemptFailed(key, worker, run_id, None, error, b"pickled")
        return dict(self.ask(Operation.ATTEMPT_FAILED, message))

    def give_back(self, key: str, worker: str) -> None:
        """The worker raises `Reschedule`."""
        self._stream("reschedule", key=key, worker=worker, stimulus_id=f"again-{time()}")

    def err(self, key: str, worker: str, run_id: int) -> None:
        """The worker's message that a task failed arrives."""
        self._stream(
            "task-erred", key=key, worker=worker, stimulus_id=f"erred-{time()}", run_id=run_id,
            exception=b"pickled", traceback=b"", exception_text="Broken()", traceback_text="",
        )  # fmt: skip

    def expire(self, key: str, worker: str, run_id: int) -> dict[str, bool]:
        """The nanny says that an attempt exceeded its limit."""
        name = registered_name(key)
        message = AttemptExpired(name, worker, run_id, time() - 9, 9.0, 0, ())
        return dict(self.ask(Operation.ATTEMPT_EXPIRED, message))

    def end_wait(self, key: str) -> None:
        """The delay before a retry is over."""
        self._do(lambda: self.parts.parked.unpark(self.parts.registry[key]))

    def _send(self, operation: Operation, message: Message, **sender: str) -> None:
        wire = stream_message(operation, message)
        self._stream(wire.pop("op"), **sender, **wire)

    def _stream(self, name: str, /, **message: Any) -> None:
        self._do(lambda: self.scheduler.stream_handlers[name](**message))

    # --- what is seen ---------------------------------------------------------------

    def state(self, key: str) -> str:
        ts = self.scheduler.tasks.get(key)
        return ts.state if ts is not None else "forgotten"

    def processing(self) -> Iterator[tuple[str, str, int]]:
        """Key, worker and run of every task that is on a worker."""
        for ts in self.scheduler.tasks.values():
            if ts.processing_on is not None:
                assert ts.run_id is not None
                yield str(ts.key), ts.processing_on.address, ts.run_id
